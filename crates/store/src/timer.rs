//! Timers: scheduled starts, next runs, expiries and purges are rows with a due time. Only Postgres compares clocks.

use std::time::Duration;

use domain::job::Event;
use domain::message::TraceHeaders;
use domain::{Failure, FailureCode, JobId};

use crate::job::transition::{self, Change, Guard, Transitioned};
use crate::row::parse;
use crate::{Store, StoreError};

/// Pause before another attempt at a start that the source does not allow yet.
const START_RETRY_SECS: f64 = 30.0;

/// The action of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerKind {
    /// Starts the job.
    Start,
    /// Starts the next run of a job that delivers repeatedly.
    Run,
    /// Ends the job's validity.
    Expire,
    /// Deletes the job, after its time as an expired job.
    Purge,
    /// Returns the job's parked run to the queue.
    Resume,
}

impl TimerKind {
    /// Returns the name in the database and in the labels of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Run => "run",
            Self::Expire => "expire",
            Self::Purge => "purge",
            Self::Resume => "resume",
        }
    }

    fn event(self) -> Event {
        match self {
            Self::Start | Self::Run => Event::Start,
            Self::Expire => Event::Expire,
            Self::Purge => Event::Delete,
            Self::Resume => Event::Resumed,
        }
    }
}

impl std::str::FromStr for TimerKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Start,
            Self::Run,
            Self::Expire,
            Self::Purge,
            Self::Resume,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or(())
    }
}

/// A timer that was processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The job.
    pub job_id: JobId,
    /// Kind of the timer.
    pub kind: TimerKind,
    /// Time between the due time and the processing.
    pub lateness: Duration,
    /// Outcome for the job. `None` if the timer waits for the source, or for the end of the run.
    pub transitioned: Option<Transitioned>,
}

impl Store {
    /// Returns the time until the next timer is due; `None` without timers.
    ///
    /// # Errors
    /// The database fails.
    pub async fn until_next_timer(&self) -> Result<Option<Duration>, StoreError> {
        let seconds = sqlx::query_scalar!(
            "select extract(epoch from min(due_at) - now())::float8 from timer"
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }

    /// Processes the timer that has been due longest; `None` if none is due. Two schedulers at once take different
    /// timers. A start that is found after the end of its job's validity is left to the expiry, which removes it.
    ///
    /// # Errors
    /// The database fails; the timer stays.
    pub async fn fire_next_timer(&self) -> Result<Option<Fired>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query!(
            r#"
            select timer.job_id, timer.kind, extract(epoch from now() - timer.due_at)::float8 as "late_secs!",
                job.state in ('preparing', 'syncing', 'parked', 'processing', 'cleaning') as "is_running!",
                source.last_seen_at > now() - make_interval(secs => $1) and source.failure_code is null as "is_online!",
                exists (select 1 from job_lease where job_lease.job_id = job.id and job_lease.expires_at > now()) as "is_held!"
            from timer join job on job.id = timer.job_id join source on source.id = job.source_id
            where timer.due_at <= now() and (timer.kind not in ('start', 'run') or job.valid_until > now())
            order by timer.due_at limit 1
            for update of timer, job skip locked
            "#,
            domain::source::OFFLINE_AFTER.as_secs_f64(),
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let job_id: JobId = parse("timer.job_id", &row.job_id)?;
        let kind: TimerKind = parse("timer.kind", &row.kind)?;
        let lateness = Duration::try_from_secs_f64(row.late_secs).unwrap_or_default();
        // A job that is no longer running is held until its worker releases the lease, and can't be moved before.
        let waits = match kind {
            // An offline source can't start. The end of the validity ends the wait.
            TimerKind::Start | TimerKind::Run => !row.is_running && (row.is_held || !row.is_online),
            // A job that runs at the end of its validity is left alone. If the run ends without an image, the job
            // expires then.
            TimerKind::Expire => row.is_running || row.is_held,
            TimerKind::Purge => row.is_held,
            TimerKind::Resume => false,
        };
        if waits {
            sqlx::query!(
                "update timer set due_at = now() + make_interval(secs => $3) where job_id = $1 and kind = $2",
                row.job_id,
                row.kind,
                START_RETRY_SECS,
            )
            .execute(&mut *transaction)
            .await?;
            if matches!(kind, TimerKind::Start | TimerKind::Run) && !row.is_online {
                let waiting = Failure::new(
                    FailureCode::SourceOffline,
                    "The scheduled start waits for the source's agent, which is offline or reports an error. Start the agent.",
                );
                sqlx::query!(
                    "update job set failure_code = $2, failure_message = $3 where id = $1",
                    row.job_id,
                    waiting.code.as_str(),
                    waiting.message,
                )
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            return Ok(Some(Fired {
                job_id,
                kind,
                lateness,
                transitioned: None,
            }));
        }
        let headers = TraceHeaders::new();
        let change = Change {
            event: kind.event(),
            guard: Guard::Unleased,
            actor: "schedule",
            detail: "",
            failure: None,
            headers: &headers,
        };
        let transitioned = transition::apply(&mut transaction, &job_id, change).await?;
        sqlx::query!(
            "delete from timer where job_id = $1 and kind = $2",
            row.job_id,
            row.kind
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(Fired {
            job_id,
            kind,
            lateness,
            transitioned: Some(transitioned),
        }))
    }
}
