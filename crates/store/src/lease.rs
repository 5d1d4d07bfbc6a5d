//! Leases: the right of one worker to drive one run.
//!
//! A lease is granted with an epoch above every earlier one of its job. From then on, a write with a lower epoch
//! changes nothing. A lease that has run out is never renewed, even if no other worker took it. Its worker must claim
//! again, with a new epoch.

use std::time::Duration;

use domain::job::{Event, Intent, State};
use domain::message::{Command, Message, TraceHeaders};
use domain::{Epoch, JobId, Run};

use crate::job::transition::{self, Change, Guard};
use crate::row::parse;
use crate::{Store, StoreError, Transaction, outbox};

/// A lease granted to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job_id: JobId,
    /// The run to drive; 0 for a job that never ran and is being deleted.
    pub run: Run,
    /// The fencing number.
    pub epoch: Epoch,
    /// Time since the start of the job, if this is the run's first lease.
    pub waited: Option<Duration>,
}

/// Outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The worker holds the lease.
    Granted(Lease),
    /// Another worker holds a live lease, or held one that is not swept yet.
    Held,
    /// The job does not exist, or its state needs no worker.
    NotWanted,
}

/// A lease that was renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The job.
    pub job_id: JobId,
    /// The epoch that was renewed.
    pub epoch: Epoch,
    /// Present request of the API for the job.
    pub intent: Intent,
    /// True if another tenant wants the job's place.
    pub yields: bool,
}

impl Store {
    /// Claims a job that has a slot, to drive its run.
    ///
    /// # Errors
    /// The database fails.
    pub async fn claim_run(
        &self,
        job_id: &JobId,
        worker: &str,
        ttl: Duration,
    ) -> Result<Claim, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(job) = lock(&mut transaction, job_id).await? else {
            return refuse(transaction, Claim::NotWanted).await;
        };
        if !job.state.is_running() || !job.has_slot {
            return refuse(transaction, Claim::NotWanted).await;
        }
        // The sweeper handles a dead lease: it counts the loss against the run and asks for a worker again. Otherwise a
        // run that kills its workers would continue forever.
        if job.has_lease {
            return refuse(transaction, Claim::Held).await;
        }
        grant(transaction, job, job_id, worker, ttl).await
    }

    /// Claims a job that is being deleted, to release its resources.
    ///
    /// # Errors
    /// The database fails.
    pub async fn claim_removal(
        &self,
        job_id: &JobId,
        worker: &str,
        ttl: Duration,
    ) -> Result<Claim, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(job) = lock(&mut transaction, job_id).await? else {
            return refuse(transaction, Claim::NotWanted).await;
        };
        if job.state != State::Deleting {
            return refuse(transaction, Claim::NotWanted).await;
        }
        if job.is_leased {
            return refuse(transaction, Claim::Held).await;
        }
        grant(transaction, job, job_id, worker, ttl).await
    }

    /// Renews leases that have not run out, and returns the present request of the API for each job. A lease that is
    /// missing in the answer is lost.
    ///
    /// # Errors
    /// The database fails. The outcome is then unknown, and the leases must be treated as about to run out.
    pub async fn renew_leases(
        &self,
        worker: &str,
        held: &[(JobId, Epoch)],
        ttl: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        let (jobs, epochs): (Vec<String>, Vec<i64>) = held
            .iter()
            .map(|(job_id, epoch)| (job_id.to_string(), epoch.0))
            .unzip();
        let rows = sqlx::query!(
            r#"
            update job_lease set expires_at = now() + make_interval(secs => $4)
            from job, unnest($1::text[], $2::bigint[]) as held (job_id, epoch)
            where job_lease.job_id = held.job_id and job_lease.epoch = held.epoch and job_lease.worker = $3
              and job_lease.expires_at > now() and job.id = job_lease.job_id
            returning job_lease.job_id, job_lease.epoch, job_lease.yields, job.intent
            "#,
            &jobs,
            &epochs,
            worker,
            ttl.as_secs_f64(),
        )
        .fetch_all(&self.leases)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Renewed {
                    job_id: parse("job_lease.job_id", &row.job_id)?,
                    epoch: Epoch(row.epoch),
                    intent: parse("job.intent", &row.intent)?,
                    yields: row.yields,
                })
            })
            .collect()
    }

    /// Releases a lease when the run is over, or was never begun. A lease of another epoch stays.
    ///
    /// # Errors
    /// The database fails; the lease runs out by itself.
    pub async fn release_lease(&self, job_id: &JobId, epoch: Epoch) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from job_lease where job_id = $1 and epoch = $2",
            job_id.as_str(),
            epoch.0
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Releases a lease in the middle of its run, and asks for another worker at once. A drain does not count as a lost
    /// lease.
    ///
    /// # Errors
    /// The database fails; the sweeper does the same when the lease has run out.
    pub async fn hand_over(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        worker: &str,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(job) = lock(&mut transaction, job_id).await? else {
            return Ok(());
        };
        let released = sqlx::query!(
            "delete from job_lease where job_id = $1 and epoch = $2",
            job_id.as_str(),
            epoch.0
        )
        .execute(&mut *transaction)
        .await?;
        if released.rows_affected() == 0 || !job.state.is_running() {
            return Ok(());
        }
        let headers = TraceHeaders::new();
        let change = Change {
            event: Event::LeaseLost,
            guard: Guard::Unleased,
            actor: worker,
            detail: "handed over by a worker that drains",
            failure: None,
            headers: &headers,
        };
        transition::apply(&mut transaction, job_id, change).await?;
        let command = Command::StartRun {
            job_id: job_id.clone(),
            run: job.run,
        };
        outbox::append(&mut transaction, &Message::Command(command), &headers).await?;
        transaction.commit().await?;
        Ok(())
    }
}

struct Locked {
    state: State,
    run: Run,
    has_slot: bool,
    has_lease: bool,
    is_leased: bool,
    first_lease_waited_secs: Option<f64>,
}

async fn lock(
    transaction: &mut Transaction<'_>,
    job_id: &JobId,
) -> Result<Option<Locked>, StoreError> {
    let row = sqlx::query!(
        r#"
        select state, run, admitted_at is not null as "has_slot!",
            case when not exists (
                select 1 from job_event where job_id = job.id and run = job.run and event = 'prepared')
            then extract(epoch from now() - queued_at)::float8 end as waited_secs
        from job where id = $1 for update
        "#,
        job_id.as_str(),
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    // This check is a statement of its own. The statement above waits for the row, but sees other tables as they were
    // before the wait. It would miss the lease of the previous holder of the row.
    let is_live = sqlx::query_scalar!(
        r#"select expires_at > now() as "is_live!" from job_lease where job_id = $1"#,
        job_id.as_str(),
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(Some(Locked {
        state: parse("job.state", &row.state)?,
        run: Run(row.run),
        has_slot: row.has_slot,
        has_lease: is_live.is_some(),
        is_leased: is_live == Some(true),
        first_lease_waited_secs: row.waited_secs,
    }))
}

/// Releases the job's row at once, because the sweeper skips locked rows.
async fn refuse(transaction: Transaction<'_>, claim: Claim) -> Result<Claim, StoreError> {
    transaction.rollback().await?;
    Ok(claim)
}

async fn grant(
    mut transaction: Transaction<'_>,
    job: Locked,
    job_id: &JobId,
    worker: &str,
    ttl: Duration,
) -> Result<Claim, StoreError> {
    let epoch = sqlx::query_scalar!(
        "update job set epoch = epoch + 1 where id = $1 returning epoch",
        job_id.as_str()
    )
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query!(
        r#"
        insert into job_lease (job_id, run, epoch, worker, expires_at)
        values ($1, $2, $3, $4, now() + make_interval(secs => $5))
        on conflict (job_id) do update set
            run = excluded.run, epoch = excluded.epoch, worker = excluded.worker, expires_at = excluded.expires_at,
            yields = false, since = now()
        "#,
        job_id.as_str(),
        job.run.0,
        epoch,
        worker,
        ttl.as_secs_f64(),
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Claim::Granted(Lease {
        job_id: job_id.clone(),
        run: job.run,
        epoch: Epoch(epoch),
        waited: job
            .first_lease_waited_secs
            .and_then(|secs| Duration::try_from_secs_f64(secs).ok()),
    }))
}
