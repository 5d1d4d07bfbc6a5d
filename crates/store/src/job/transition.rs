//! The one statement that moves a job.
//!
//! An event's rows of the state table (`domain::job::transition`) become one guarded `UPDATE`. The row serialises two
//! processes that send events at the same moment. The second process finds a state that its event does not move, or a
//! guard that no longer holds, and receives that outcome. History and messages are written in the same transaction.

use domain::job::{Event, Outcome, Reason, State, transition};
use domain::message::{Command, JobChanged, Message, TraceHeaders};
use domain::{Epoch, Failure, JobId, Run, TenantId};

use sqlx::types::Json;

use super::increments;
use super::runs::{self, RunKind};
use crate::row::parse;
use crate::{Store, StoreError, Transaction, image_build, outbox};

/// Days that an expired job is kept: seven (SMC API §5.4).
const PURGE_AFTER_DAYS: i32 = 7;

/// Permitted sender of the event: part of the statement's `WHERE`.
#[derive(Debug, Clone, Copy)]
pub enum Guard<'a> {
    /// The tenant that owns the job.
    Tenant(&'a TenantId),
    /// The holder of the live lease with this epoch.
    Lease(Epoch),
    /// The scheduler, for a job without a lease.
    Unleased,
}

/// An event to apply to a job.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The event.
    pub event: Event,
    /// Permitted sender of the event.
    pub guard: Guard<'a>,
    /// Actor for the history: `api`, `schedule`, `worker w-…`, `sweeper`.
    pub actor: &'a str,
    /// Details for the history, for people.
    pub detail: &'a str,
    /// Failure, with [`Event::Fail`].
    pub failure: Option<&'a Failure>,
    /// Trace context of the cause.
    pub headers: &'a TraceHeaders,
}

/// Outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transitioned {
    /// The job moved.
    Moved(JobChanged),
    /// The request is recorded; the lease holder acts on it.
    Recorded,
    /// The event came late or twice, or its sender has lost the right to send it. Nothing changed.
    Ignored {
        /// The state of the job.
        state: State,
        /// Reason why nothing changed.
        reason: Reason,
    },
    /// The sender's epoch is not that of the live lease. Nothing changed, and no later event of that sender will.
    Fenced,
    /// The tenant may not ask for this in this state.
    Refused(State),
    /// The job does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Applies `change` to the job, or returns the reason why it has no effect.
    pub async fn transition(
        &self,
        job_id: &JobId,
        change: Change<'_>,
    ) -> Result<Transitioned, StoreError> {
        let mut transaction = match change.guard {
            Guard::Tenant(tenant) => self.begin_as(tenant).await?,
            Guard::Lease(_) | Guard::Unleased => self.pool.begin().await?,
        };
        let transitioned = apply(&mut transaction, job_id, change).await?;
        match transitioned {
            Transitioned::Moved(_) | Transitioned::Recorded => transaction.commit().await?,
            _ => transaction.rollback().await?,
        }
        Ok(transitioned)
    }
}

/// Performs [`Store::transition`] as part of a larger transaction, which the caller commits.
pub(crate) async fn apply(
    transaction: &mut Transaction<'_>,
    job_id: &JobId,
    change: Change<'_>,
) -> Result<Transitioned, StoreError> {
    match move_job(transaction, job_id, &change).await? {
        Some(changed) => {
            set_timers(transaction, &changed).await?;
            let kind = match change.guard {
                Guard::Tenant(_) => RunKind::Manual,
                Guard::Lease(_) | Guard::Unleased => RunKind::Schedule,
            };
            runs::record(transaction, &changed, kind).await?;
            record(transaction, &changed, &change).await?;
            outbox::append(
                transaction,
                &Message::JobChanged(changed.clone()),
                change.headers,
            )
            .await?;
            if changed.event == Event::Delete {
                let command = Command::RemoveJob {
                    job_id: job_id.clone(),
                };
                outbox::append(transaction, &Message::Command(command), change.headers).await?;
            }
            if changed.from.is_running() && !changed.to.is_running() {
                image_build::abandon_images(transaction, job_id, change.headers).await?;
            }
            if matches!(changed.to, State::Preparing | State::Parked)
                || changed.from.is_running() && !changed.to.is_running()
            {
                sqlx::query!("select pg_notify($1, '')", super::QUEUE_CHANNEL)
                    .execute(&mut **transaction)
                    .await?;
            }
            Ok(Transitioned::Moved(changed))
        }
        None => unmoved(transaction, job_id, &change).await,
    }
}

async fn move_job(
    transaction: &mut Transaction<'_>,
    job_id: &JobId,
    change: &Change<'_>,
) -> Result<Option<JobChanged>, StoreError> {
    let (from, to): (Vec<String>, Vec<String>) = change
        .event
        .moves()
        .map(|(from, to)| (from.as_str().to_owned(), to.as_str().to_owned()))
        .unzip();
    let (tenant, epoch, unleased) = match change.guard {
        Guard::Tenant(tenant) => (Some(tenant.as_str()), None, false),
        Guard::Lease(epoch) => (None, Some(epoch.0), false),
        Guard::Unleased => (None, None, true),
    };
    let row = sqlx::query!(
        r#"
        with moves as (
            select * from unnest($2::text[], $3::text[]) as moves (from_state, to_state)
        ), running (state) as (
            values ('preparing'), ('syncing'), ('parked'), ('processing'), ('cleaning')
        )
        update job set
            state = moves.to_state,
            state_since = now(),
            run = job.run + case when $4 = 'start' then 1 else 0 end,
            -- A run that was parked stands behind those that have waited.
            queued_at = case when $4 in ('start', 'resumed') then now() else job.queued_at end,
            start_headers = case when $4 = 'start' then $10 else job.start_headers end,
            asked_at = null,
            started_at = case when $4 = 'start' then now() else job.started_at end,
            ended_at = case
                when $4 = 'start' then null
                when moves.from_state in (select state from running) and moves.to_state not in (select state from running) then now()
                else job.ended_at end,
            -- The instance of the run before is gone, and what was copied into it.
            bytes_durable = case when moves.from_state = 'waiting' then 0 else job.bytes_durable end,
            admitted_at = case when moves.to_state in (select state from running) and moves.to_state <> 'parked' and $4 <> 'start'
                then job.admitted_at end,
            intent = case
                when $4 = 'start' then 'run'
                when $4 = 'delete' then 'delete'
                when moves.to_state in ('stopped', 'in_error', 'finished', 'waiting', 'expired') then 'rest'
                else job.intent end,
            intent_version = job.intent_version + 1,
            leases_lost = case when $4 = 'start' then 0 else job.leases_lost end,
            silent_since = case when $4 = 'start' then null else job.silent_since end,
            parks = case when $4 = 'start' then 0 else job.parks end,
            failure_code = case when $4 = 'fail' then $5 when $4 = 'start' then null else job.failure_code end,
            failure_message = case when $4 = 'fail' then $6 when $4 = 'start' then null else job.failure_message end
        from moves
        where job.id = $1
          and job.state = moves.from_state
          and ($7::text is null or job.tenant = $7)
          and ($8::bigint is null or job.epoch = $8 and exists (
                select 1 from job_lease
                where job_lease.job_id = job.id and job_lease.epoch = $8 and job_lease.expires_at > now()))
          and (not $9 or not exists (
                select 1 from job_lease where job_lease.job_id = job.id and job_lease.expires_at > now()))
        returning job.tenant, moves.from_state as "from_state!", job.state, job.run, job.epoch
        "#,
        job_id.as_str(),
        &from,
        &to,
        change.event.as_str(),
        change.failure.map(|failure| failure.code.as_str()),
        change.failure.map(|failure| failure.message.as_str()),
        tenant,
        epoch,
        unleased,
        Json(change.headers) as _,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| {
        Ok(JobChanged {
            tenant: parse("job.tenant", &row.tenant)?,
            job_id: job_id.clone(),
            event: change.event,
            from: parse("job.state", &row.from_state)?,
            to: parse("job.state", &row.state)?,
            run: Run(row.run),
            epoch: Epoch(row.epoch),
        })
    })
    .transpose()
}

/// Records a request, or returns the reason why the statement changed nothing.
async fn unmoved(
    transaction: &mut Transaction<'_>,
    job_id: &JobId,
    change: &Change<'_>,
) -> Result<Transitioned, StoreError> {
    let Some(row) = sqlx::query!(
        "select tenant, state, run, epoch from job where id = $1 for update",
        job_id.as_str()
    )
    .fetch_optional(&mut **transaction)
    .await?
    else {
        return Ok(Transitioned::NotFound);
    };
    if let Guard::Tenant(tenant) = change.guard
        && tenant.as_str() != row.tenant
    {
        return Ok(Transitioned::NotFound);
    }
    let state: State = parse("job.state", &row.state)?;
    Ok(match transition::next(state, change.event) {
        Outcome::Recorded => {
            let changed = JobChanged {
                tenant: parse("job.tenant", &row.tenant)?,
                job_id: job_id.clone(),
                event: change.event,
                from: state,
                to: state,
                run: Run(row.run),
                epoch: Epoch(row.epoch),
            };
            record_intent(transaction, &changed, change).await?;
            Transitioned::Recorded
        }
        Outcome::Refused => Transitioned::Refused(state),
        Outcome::Ignored(reason) => Transitioned::Ignored { state, reason },
        // The event moves this state, so the guard did not hold.
        Outcome::To(_) => match change.guard {
            Guard::Lease(_) => Transitioned::Fenced,
            Guard::Tenant(_) | Guard::Unleased => Transitioned::Ignored {
                state,
                reason: Reason::Late,
            },
        },
        Outcome::Gone => Transitioned::Ignored {
            state,
            reason: Reason::Impossible,
        },
    })
}

/// Records the stop of a running job. Its lease holder finds the intent at the next renewal, or sooner by the message.
async fn record_intent(
    transaction: &mut Transaction<'_>,
    changed: &JobChanged,
    change: &Change<'_>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update job set intent = 'stop', intent_version = intent_version + 1 where id = $1",
        changed.job_id.as_str()
    )
    .execute(&mut **transaction)
    .await?;
    record(transaction, changed, change).await?;
    let command = Command::StopRun {
        job_id: changed.job_id.clone(),
    };
    outbox::append(transaction, &Message::Command(command), change.headers).await
}

async fn record(
    transaction: &mut Transaction<'_>,
    changed: &JobChanged,
    change: &Change<'_>,
) -> Result<(), StoreError> {
    let detail = match change.failure {
        Some(failure) => failure.to_string(),
        None => change.detail.to_owned(),
    };
    let seq = sqlx::query_scalar!(
        "insert into job_event (job_id, tenant, event, from_state, to_state, run, epoch, actor, detail)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning seq",
        changed.job_id.as_str(),
        changed.tenant.as_str(),
        changed.event.as_str(),
        changed.from.as_str(),
        changed.to.as_str(),
        changed.run.0,
        changed.epoch.0,
        change.actor,
        detail,
    )
    .fetch_one(&mut **transaction)
    .await?;
    let cause = change.failure.map_or("", |failure| failure.cause.as_str());
    if !cause.is_empty() {
        sqlx::query!(
            "insert into failure_cause (seq, cause) values ($1, $2)",
            seq,
            cause
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// Sets and removes timers after a move. A started job has no scheduled start, and a job that waits for its next run
/// has one. A delivered job does not expire, and an expired job is purged.
async fn set_timers(
    transaction: &mut Transaction<'_>,
    changed: &JobChanged,
) -> Result<(), StoreError> {
    let over: &[&str] = match changed.to {
        State::Finished | State::Expired | State::Deleting => &["start", "expire", "run", "resume"],
        State::Preparing => &["start", "run", "resume"],
        State::Stopped => &["run", "resume"],
        State::InError => &["resume"],
        State::Ready
        | State::Syncing
        | State::Parked
        | State::Processing
        | State::Cleaning
        | State::Waiting => &[],
    };
    if changed.to == State::Waiting {
        increments::set_next_run(transaction, &changed.job_id).await?;
    }
    if !over.is_empty() {
        let over: Vec<String> = over.iter().map(|&kind| kind.to_owned()).collect();
        sqlx::query!(
            "delete from timer where job_id = $1 and kind = any($2)",
            changed.job_id.as_str(),
            &over
        )
        .execute(&mut **transaction)
        .await?;
    }
    if changed.to == State::Expired {
        sqlx::query!(
            "insert into timer (job_id, kind, due_at) values ($1, 'purge', now() + make_interval(days => $2))
             on conflict (job_id, kind) do nothing",
            changed.job_id.as_str(),
            PURGE_AFTER_DAYS,
        )
        .execute(&mut **transaction)
        .await?;
        sqlx::query!("select pg_notify($1, '')", super::TIMER_CHANNEL)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}
