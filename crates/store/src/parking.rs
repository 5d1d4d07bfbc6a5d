//! Parking: a run in the middle of its copy releases its worker's place, and its copied data is kept.
//!
//! A parked run has no slot, no lease and no assignment. A timer returns the run to the queue, or earlier the first
//! report of its agent after a silence. The pause doubles with each time that no data came. So an agent that never
//! sends holds a place for an ever smaller share of the time.

use std::time::Duration;

use domain::job::Event;
use domain::message::TraceHeaders;
use domain::{Epoch, JobId, SourceId};

use crate::job::transition::{self, Change, Guard, Transitioned};
use crate::{Store, StoreError, Transaction};

/// First and longest pause of a parked run.
const FIRST_PAUSE_SECS: f64 = 60.0;
const LONGEST_PAUSE_SECS: f64 = 900.0;

/// Reason why a run releases its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parking {
    /// The run's agent is silent.
    Silent {
        /// Time since the run last made progress.
        since: Duration,
        /// Longest time until the run checks for its agent again.
        at_most: Duration,
    },
    /// Another tenant waits for the place. The run is queued again at once.
    Yields,
}

impl Store {
    /// Parks the run. The transaction that moves the run also removes its lease, its slot and its assignment.
    ///
    /// # Errors
    /// The database fails; nothing has changed.
    pub async fn park_run(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        worker: &str,
        parking: Parking,
    ) -> Result<Transitioned, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let headers = TraceHeaders::new();
        let change = Change {
            event: Event::Parked,
            guard: Guard::Lease(epoch),
            actor: worker,
            detail: match parking {
                Parking::Silent { .. } => "the agent is silent",
                Parking::Yields => "gave its place to another account",
            },
            failure: None,
            headers: &headers,
        };
        let parked = transition::apply(&mut transaction, job_id, change).await?;
        if !matches!(parked, Transitioned::Moved(_)) {
            transaction.rollback().await?;
            return Ok(parked);
        }
        sqlx::query!(
            "delete from job_lease where job_id = $1 and epoch = $2",
            job_id.as_str(),
            epoch.0
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "delete from assignment where job_id = $1 and epoch <= $2",
            job_id.as_str(),
            epoch.0
        )
        .execute(&mut *transaction)
        .await?;
        match parking {
            Parking::Silent { since, at_most } => {
                resume_later(&mut transaction, job_id, since, at_most).await?;
            }
            Parking::Yields => {
                let change = Change {
                    event: Event::Resumed,
                    guard: Guard::Unleased,
                    ..change
                };
                transition::apply(&mut transaction, job_id, change).await?;
            }
        }
        transaction.commit().await?;
        Ok(parked)
    }
}

async fn resume_later(
    transaction: &mut Transaction<'_>,
    job_id: &JobId,
    since: Duration,
    at_most: Duration,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        with parked as (
            update job set silent_since = now() - make_interval(secs => $2), parks = parks + 1
            where id = $1 returning id, parks
        )
        insert into timer (job_id, kind, due_at)
        select id, 'resume', now() + make_interval(secs => least($3 * power(2, least(parks, 10) - 1), $4, $5)) from parked
        on conflict (job_id, kind) do update set due_at = excluded.due_at
        "#,
        job_id.as_str(),
        since.as_secs_f64(),
        FIRST_PAUSE_SECS,
        LONGEST_PAUSE_SECS,
        at_most.as_secs_f64(),
    )
    .execute(&mut **transaction)
    .await?;
    notify(transaction).await
}

/// Resumes the parked run of an agent that has reported again after a silence. The run need not wait for its timer.
pub(crate) async fn resume_now(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
) -> Result<(), StoreError> {
    let resumed = sqlx::query!(
        "update timer set due_at = now() from job
         where timer.job_id = job.id and timer.kind = 'resume' and timer.due_at > now()
           and job.source_id = $1 and job.state = 'parked'",
        source_id.as_str()
    )
    .execute(&mut **transaction)
    .await?;
    if resumed.rows_affected() > 0 {
        notify(transaction).await?;
    }
    Ok(())
}

async fn notify(transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
    sqlx::query!("select pg_notify($1, '')", crate::job::TIMER_CHANNEL)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
