//! Sweeping: leases that ran out, and requests that seem forgotten.

use std::time::Duration;

use domain::job::{Event, Intent, State};
use domain::message::{Command, Message, TraceHeaders};
use domain::{Failure, FailureCode, ImageId, JobId, Run};

use crate::job::transition::{self, Change, Guard, Transitioned};
use crate::row::parse;
use crate::{Store, StoreError, outbox};

/// Leases that a run may lose within a day and without progress before it fails.
const MOST_LEASES_LOST: i32 = 3;

/// A dead lease that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The job.
    pub job_id: JobId,
    /// Outcome for the job. `None` for a job that is being deleted, whose removal is requested again.
    pub transitioned: Option<Transitioned>,
}

/// Requests that the reconciler has repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Number of jobs with a slot that no worker has claimed.
    pub starts: u64,
    /// Number of deleted jobs that still exist.
    pub removals: u64,
    /// Number of images that still exist although they are deleted, or their run has ended without delivering them.
    pub images: u64,
}

impl Store {
    /// Removes one lease that has run out; `None` if there is none. Two sweepers at once take different leases.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sweep_lease(&self) -> Result<Option<Swept>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query!(
            "select job.id, job.state, job.run, job.intent, job_lease.epoch, job_lease.worker
             from job_lease join job on job.id = job_lease.job_id
             where job_lease.expires_at <= now()
             order by job_lease.expires_at limit 1
             for update of job skip locked"
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let job_id: JobId = parse("job.id", &row.id)?;
        let removed = sqlx::query!(
            "delete from job_lease where job_id = $1 and expires_at <= now()",
            row.id
        )
        .execute(&mut *transaction)
        .await?;
        let state: State = parse("job.state", &row.state)?;
        let headers = TraceHeaders::new();
        if removed.rows_affected() == 0 || !state.is_running() {
            if state == State::Deleting {
                let command = Command::RemoveJob {
                    job_id: job_id.clone(),
                };
                outbox::append(&mut transaction, &Message::Command(command), &headers).await?;
            }
            transaction.commit().await?;
            return Ok(Some(Swept {
                job_id,
                transitioned: None,
            }));
        }
        // Losses of yesterday mean nothing today: the count restarts a day after it began.
        let lost = sqlx::query_scalar!(
            "update job set
                 leases_lost = case when leases_lost_since > now() - interval '1 day' then leases_lost + 1 else 1 end,
                 leases_lost_since = case when leases_lost > 0 and leases_lost_since > now() - interval '1 day'
                     then leases_lost_since else now() end
             where id = $1 returning leases_lost",
            row.id
        )
        .fetch_one(&mut *transaction)
        .await?;
        let failure = Failure::new(
            FailureCode::WorkerLost,
            format!(
                "The run lost its worker {lost} times within a day without progress, the last time {}. Tell the operator, then start the job \
                 again; what was copied is kept.",
                row.worker
            ),
        );
        let event = match parse::<Intent>("job.intent", &row.intent)? {
            Intent::Stop => Event::Halted,
            _ if lost >= MOST_LEASES_LOST => Event::Fail,
            Intent::Rest | Intent::Run | Intent::Delete => Event::LeaseLost,
        };
        let change = Change {
            event,
            guard: Guard::Unleased,
            actor: "sweeper",
            detail: &row.worker,
            failure: (event == Event::Fail).then_some(&failure),
            headers: &headers,
        };
        let transitioned = transition::apply(&mut transaction, &job_id, change).await?;
        if event == Event::LeaseLost {
            let command = Command::StartRun {
                job_id: job_id.clone(),
                run: Run(row.run),
            };
            outbox::append(&mut transaction, &Message::Command(command), &headers).await?;
        }
        transaction.commit().await?;
        Ok(Some(Swept {
            job_id,
            transitioned: Some(transitioned),
        }))
    }

    /// Repeats requests that have waited longer than `age`, because the message was lost or no process could act on it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn reconcile(&self, age: Duration) -> Result<Reconciled, StoreError> {
        let mut reconciled = Reconciled::default();
        let mut transaction = self.pool.begin().await?;
        let age_secs = age.as_secs_f64();
        let headers = TraceHeaders::new();
        let starts = sqlx::query!(
            "update job set asked_at = now() where id in (
                select id from job
                where admitted_at < now() - make_interval(secs => $1) and state = 'preparing'
                  and (asked_at is null or asked_at < now() - make_interval(secs => $1))
                  and not exists (select 1 from job_lease where job_lease.job_id = job.id)
                order by admitted_at limit 500 for update skip locked)
             returning id, run",
            age_secs
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in starts {
            let command = Command::StartRun {
                job_id: parse("job.id", &row.id)?,
                run: Run(row.run),
            };
            outbox::append(&mut transaction, &Message::Command(command), &headers).await?;
            reconciled.starts += 1;
        }
        let removals = sqlx::query_scalar!(
            "update job set asked_at = now() where id in (
                select id from job
                where state = 'deleting' and state_since < now() - make_interval(secs => $1)
                  and (asked_at is null or asked_at < now() - make_interval(secs => $1))
                  and not exists (select 1 from job_lease where job_lease.job_id = job.id)
                order by state_since limit 500 for update skip locked)
             returning id",
            age_secs
        )
        .fetch_all(&mut *transaction)
        .await?;
        for id in removals {
            let command = Command::RemoveJob {
                job_id: parse("job.id", &id)?,
            };
            outbox::append(&mut transaction, &Message::Command(command), &headers).await?;
            reconciled.removals += 1;
        }
        let images = sqlx::query_scalar!(
            "update image set state = 'deleting', asked_at = now() where id in (
                select id from image
                where state <> 'available' and (
                    state = 'deleting' and (asked_at is null or asked_at < now() - make_interval(secs => $1))
                    -- Begun by a run that has ended: whoever held it was late.
                    or state = 'creating' and not exists (
                        select 1 from job where job.id = image.job_id and job.run = image.run
                            and job.state in ('preparing', 'syncing', 'parked', 'processing', 'cleaning')))
                order by id limit 500 for update skip locked)
             returning id",
            age_secs
        )
        .fetch_all(&mut *transaction)
        .await?;
        for id in images {
            let image_id: ImageId = parse("image.id", &id)?;
            let command = Command::RemoveImage { image_id };
            outbox::append(&mut transaction, &Message::Command(command), &headers).await?;
            reconciled.images += 1;
        }
        transaction.commit().await?;
        Ok(reconciled)
    }
}
