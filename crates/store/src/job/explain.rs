//! The facts from which a job is explained, and its history.

use domain::job::explain::{Facts, QueueFacts, SourceFacts, WorkerFacts};
use domain::job::{Event, State};
use domain::parameters::{Consistency, ReplicationParameters};
use domain::status_info::StatusInfo;
use domain::{Epoch, JobId, Run, TenantId, Timestamp};
use sqlx::types::Json;

use super::describe::disks_of_jobs;
use crate::row::{parse, parse_opt, unsigned};
use crate::source::offline_after_secs;
use crate::{Store, StoreError};

/// Maximum number of rows of a job's history that are read, the newest ones.
const HISTORY_LENGTH: i64 = 200;

/// One row of a job's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Time of the event.
    pub at: Timestamp,
    /// The event.
    pub event: Event,
    /// The state before the event.
    pub from: State,
    /// The state after the event.
    pub to: State,
    /// The run.
    pub run: Run,
    /// The epoch.
    pub epoch: Epoch,
    /// The actor that reported the event.
    pub actor: String,
    /// Details, for people.
    pub detail: String,
}

impl Store {
    /// Returns the facts about the job; `None` if the tenant has no such job.
    pub async fn job_facts(
        &self,
        tenant: &TenantId,
        id: &JobId,
    ) -> Result<Option<Facts>, StoreError> {
        let mut connection = self.connection_as(tenant).await?;
        let Some(row) = sqlx::query!(
            r#"
            select job.state, job.intent, job.run, job.failure_code, job.failure_message,
                job.observed as "observed: Json<StatusInfo>", job.bytes_durable, job.bytes_total, job.leases_lost,
                job.valid_until, job.image_id, job.replication_parameters,
                source.last_seen_at, source.failure_message as source_failure, source.clock_ahead_ms,
                case when source.cloned_at is not null and source.rival_seen_at > now() - make_interval(secs => $4)
                    then coalesce(source.rival_host, '') end as rival_host,
                source.last_seen_at > now() - make_interval(secs => $3) as "source_online!",
                job.state = 'preparing' and job.admitted_at is null as "is_queued!",
                (select count(*) from job as ahead
                    where ahead.tenant = job.tenant and ahead.state = 'preparing' and ahead.admitted_at is null
                      and (ahead.priority > job.priority
                        or ahead.priority = job.priority and (ahead.queued_at, ahead.id) <= (job.queued_at, job.id))
                ) as "position!",
                (select count(*) from job as other
                    where other.tenant = job.tenant and other.admitted_at is not null) as "running!",
                tenant.max_running,
                job_lease.worker as "worker?", job_lease.expires_at > now() as lease_is_live,
                (select due_at from timer where timer.job_id = job.id and kind = 'start') as start_at,
                (select due_at from timer where timer.job_id = job.id and kind = 'run') as run_at,
                (select due_at from timer where timer.job_id = job.id and kind = 'purge') as purge_at,
                (select due_at from timer where timer.job_id = job.id and kind = 'resume') as resume_at
            from job
            join source on source.id = job.source_id
            join tenant on tenant.id = job.tenant
            left join job_lease on job_lease.job_id = job.id
            where job.tenant = $1 and job.id = $2
            "#,
            tenant.as_str(),
            id.as_str(),
            offline_after_secs(),
            domain::seat::TOLD_FOR.as_secs_f64(),
        )
        .fetch_optional(&mut *connection)
        .await?
        else {
            return Ok(None);
        };
        let disks = disks_of_jobs(&mut connection, &[id.to_string()]).await?;
        let in_use = disks.into_values().flatten().filter_map(|disk| disk.in_use);
        let parameters = ReplicationParameters::parse(&row.replication_parameters);
        let matters = parameters.is_ok_and(|asked| asked.consistency == Consistency::Crash);
        Ok(Some(Facts {
            state: parse("job.state", &row.state)?,
            intent: parse("job.intent", &row.intent)?,
            run: Run(row.run),
            failure: row
                .failure_code
                .map(|code| (code, row.failure_message.unwrap_or_default())),
            source: SourceFacts {
                online: row.source_online,
                last_seen: row.last_seen_at.into(),
                failure: row.source_failure,
                warning: domain::seat::warning(row.rival_host.as_deref(), row.clock_ahead_ms),
            },
            queue: row.is_queued.then_some(QueueFacts {
                position: row.position,
                running: row.running,
                limit: i64::from(row.max_running),
            }),
            worker: row.worker.map(|name| WorkerFacts {
                name,
                is_live: row.lease_is_live.unwrap_or(false),
            }),
            unreadable: row
                .observed
                .0
                .unreadable_ranges
                .zip(row.observed.0.unreadable_bytes),
            consistency: row.observed.0.consistency,
            in_use: in_use.filter(|_| matters).collect(),
            doing: row.observed.0.doing,
            copied_free_space: row.observed.0.copied_free_space,
            bytes_durable: unsigned("job.bytes_durable", row.bytes_durable)?,
            bytes_total: unsigned("job.bytes_total", row.bytes_total)?,
            leases_lost: row.leases_lost,
            scheduled_start: row.start_at.map(Timestamp::from),
            resumes: row.resume_at.map(Timestamp::from),
            next_run: row.run_at.map(Timestamp::from),
            valid_until: row.valid_until.into(),
            purge_at: row.purge_at.map(Timestamp::from),
            image_id: parse_opt("job.image_id", row.image_id.as_deref())?,
        }))
    }

    /// Returns the job's history, oldest first: its last 200 rows. The history outlives the job.
    pub async fn job_history(
        &self,
        tenant: &TenantId,
        id: &JobId,
    ) -> Result<Vec<JobEvent>, StoreError> {
        let rows = sqlx::query!(
            "select at, event, from_state, to_state, run, epoch, actor, detail from job_event
             where tenant = $1 and job_id = $2 order by seq desc limit $3",
            tenant.as_str(),
            id.as_str(),
            HISTORY_LENGTH,
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?;
        rows.into_iter()
            .rev()
            .map(|row| {
                Ok(JobEvent {
                    at: row.at.into(),
                    event: parse("job_event.event", &row.event)?,
                    from: parse("job_event.from_state", &row.from_state)?,
                    to: parse("job_event.to_state", &row.to_state)?,
                    run: Run(row.run),
                    epoch: Epoch(row.epoch),
                    actor: row.actor,
                    detail: row.detail,
                })
            })
            .collect()
    }
}
