//! The tenant's jobs, with everything that the API shows of them.

use std::collections::HashMap;

use domain::disk::{DiskInUse, SourcePartition, TargetDisk};
use domain::job::{BusinessStatus, State, Status};
use domain::status_info::StatusInfo;
use domain::tag::TagFilter;
use domain::{ImageId, InstanceId, JobId, Run, SourceId, TenantId, Timestamp, WorkgroupId};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::Increments;
use super::runs::JobRun;
use crate::list::Matching;
use crate::row::{parse, parse_opt, unsigned};
use crate::source::disk_index;
use crate::{Listed, Page, Store, StoreError};

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Id of the job.
    pub id: JobId,
    /// Source of the job.
    pub source_id: SourceId,
    /// Region of the job's image.
    pub region_id: String,
    /// Name of the job.
    pub name: String,
    /// Description of the job.
    pub description: String,
    /// `Image`.
    pub target_type: String,
    /// Name of the job's image.
    pub image_name: String,
    /// Mode of the network: 0, the public network.
    pub net_mode: i32,
    /// The vSwitch; empty without one.
    pub vswitch_id: String,
    /// The VPC; empty without one.
    pub vpc_id: String,
    /// `ReplicationParameters`, unchanged.
    pub replication_parameters: String,
    /// State of the job.
    pub state: State,
    /// Run of the job.
    pub run: Run,
    /// The furthest running state that the run reached, or [`State::Waiting`] after the run; [`State::Ready`] before
    /// the first run.
    pub furthest: State,
    /// Position in the queue, from 1, while the job waits for a slot.
    pub queue_position: Option<i64>,
    /// Code and sentence of the job's last failure.
    pub failure: Option<(String, String)>,
    /// Last report of the lease holder.
    pub observed: StatusInfo,
    /// Bytes on the target, flushed.
    pub bytes_durable: u64,
    /// Bytes of all disks; 0 while unknown.
    pub bytes_total: u64,
    /// Intermediate instance of the job.
    pub instance_id: Option<InstanceId>,
    /// Image of the job.
    pub image_id: Option<ImageId>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last start.
    pub started_at: Option<Timestamp>,
    /// End of the last run.
    pub ended_at: Option<Timestamp>,
    /// Time of the scheduled start, future or past.
    pub scheduled_start_at: Option<Timestamp>,
    /// End of the validity.
    pub valid_until: Timestamp,
    /// Warning for the owner of a source that works.
    pub source_warning: Option<String>,
    /// Workgroup of the job's source.
    pub workgroup_id: Option<WorkgroupId>,
    /// Schedule of repeated deliveries; `None` for a job that delivers once.
    pub increments: Option<Increments>,
    /// The job's last runs, in their order.
    pub runs: Vec<JobRun>,
    /// Disks of the job's image, by index.
    pub disks: Vec<JobDisk>,
}

/// A disk of an image, with the partitions that it copies from its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDisk {
    /// Index and size of the disk.
    pub target: TargetDisk,
    /// Partitions, copied unchanged.
    pub partitions: Vec<SourcePartition>,
    /// The source's disk, if it is used for writing there.
    pub in_use: Option<DiskInUse>,
}

/// A filter for the list of jobs; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Ids of the jobs.
    pub ids: Option<Vec<String>>,
    /// Sources of the jobs.
    pub source_ids: Option<Vec<String>>,
    /// Name of the job.
    pub name: Option<String>,
    /// Region of the job's image.
    pub region_id: Option<String>,
    /// Status of the job.
    pub status: Option<Status>,
    /// Business status of the job.
    pub business_status: Option<BusinessStatus>,
    /// Workgroup of the job's source.
    pub workgroup_id: Option<String>,
    /// Tags that the job must have, all of them.
    pub tags: Vec<TagFilter>,
}

impl JobFilter {
    /// Returns the states that pass; `None` is all.
    fn states(&self) -> Option<Vec<&'static str>> {
        if self.status.is_none() && self.business_status.is_none() {
            return None;
        }
        let passes = |state: &State| {
            self.status.is_none_or(|status| state.status() == status)
                && self
                    .business_status
                    .is_none_or(|status| state.business_status() == Some(status))
        };
        Some(
            State::ALL
                .into_iter()
                .filter(passes)
                .map(State::as_str)
                .collect(),
        )
    }
}

impl Store {
    /// Returns the tenant's jobs, newest first.
    pub async fn jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        page: Page,
    ) -> Result<Listed<Job>, StoreError> {
        let start = self.page_ends.start(tenant, "job", filter, page);
        let mut connection = self.connection_as(tenant).await?;
        let mut matching = Matching::of(tenant, "job", &filter.tags)
            .and_one_of("id", filter.ids.as_deref())
            .and_one_of("source_id", filter.source_ids.as_deref())
            .and("name = ?", filter.name.as_deref())
            .and("region_id = ?", filter.region_id.as_deref())
            .and(
                "source_id = any(array(select id from source where workgroup_id = ?))",
                filter.workgroup_id.as_deref(),
            );
        if let Some(states) = filter.states() {
            // The states are literals: the planner can then use that few jobs run and most are finished.
            let states = states.join("', '");
            matching = matching.and_where(format_args!("state in ('{states}')"));
        }
        let Listed { rows: ids, total } = matching.page(start, &mut connection).await?;
        let rows = sqlx::query!(
            r#"
            with queue as materialized (
                -- Read once, and only if somebody on the page stands in it.
                select id, row_number() over (order by priority desc, queued_at, id) as position from job
                where tenant = $1 and state = 'preparing' and admitted_at is null
                  and exists (select 1 from job where id = any($2) and state = 'preparing' and admitted_at is null)
            )
            select id, source_id, region_id, name, description, target_type, image_name, net_mode, vswitch_id, vpc_id,
                replication_parameters, state, run, failure_code, failure_message, observed as "observed: Json<StatusInfo>",
                bytes_durable, bytes_total, instance_id, image_id, created_at, started_at, ended_at, scheduled_start_at, valid_until,
                frequency_hours, images_to_keep,
                queue.position as "queue_position?",
                (select workgroup_id from source where source.id = job.source_id) as workgroup_id,
                (select to_state from job_event
                    where job_event.job_id = job.id and job_event.run = job.run
                      and to_state in ('preparing', 'syncing', 'processing', 'cleaning', 'waiting')
                    order by array_position(array['preparing', 'syncing', 'processing', 'cleaning', 'waiting'], to_state) desc
                    limit 1) as furthest
            from job left join queue using (id)
            where id = any($2)
            order by created_at desc, id desc
            "#,
            tenant.as_str(),
            &ids,
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut disks = disks_of_jobs(&mut connection, &ids).await?;
        let mut runs = super::runs::of_jobs(&mut connection, &ids).await?;
        let mut warnings = warnings_of_jobs(&mut connection, &ids).await?;
        let rows = rows
            .into_iter()
            .map(|row| {
                Ok(Job {
                    disks: disks.remove(&row.id).unwrap_or_default(),
                    runs: runs.remove(&row.id).unwrap_or_default(),
                    source_warning: warnings.remove(&row.id),
                    increments: Increments::from_columns(row.frequency_hours, row.images_to_keep),
                    id: parse("job.id", &row.id)?,
                    source_id: parse("job.source_id", &row.source_id)?,
                    region_id: row.region_id,
                    name: row.name,
                    description: row.description,
                    target_type: row.target_type,
                    image_name: row.image_name,
                    net_mode: row.net_mode,
                    vswitch_id: row.vswitch_id,
                    vpc_id: row.vpc_id,
                    replication_parameters: row.replication_parameters,
                    state: parse("job.state", &row.state)?,
                    run: Run(row.run),
                    furthest: parse_opt("job_event.to_state", row.furthest.as_deref())?
                        .unwrap_or(State::Ready),
                    queue_position: row.queue_position,
                    failure: row
                        .failure_code
                        .map(|code| (code, row.failure_message.unwrap_or_default())),
                    observed: row.observed.0,
                    bytes_durable: unsigned("job.bytes_durable", row.bytes_durable)?,
                    bytes_total: unsigned("job.bytes_total", row.bytes_total)?,
                    instance_id: parse_opt("job.instance_id", row.instance_id.as_deref())?,
                    image_id: parse_opt("job.image_id", row.image_id.as_deref())?,
                    created_at: row.created_at.into(),
                    started_at: row.started_at.map(Timestamp::from),
                    ended_at: row.ended_at.map(Timestamp::from),
                    scheduled_start_at: row.scheduled_start_at.map(Timestamp::from),
                    valid_until: row.valid_until.into(),
                    workgroup_id: parse_opt("source.workgroup_id", row.workgroup_id.as_deref())?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Listed { rows, total })
    }
}

/// Returns the warnings for the owners of these jobs about their sources, by job. Only jobs concerned are included.
async fn warnings_of_jobs(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<HashMap<String, String>, StoreError> {
    let rows = sqlx::query!(
        "select job.id, source.clock_ahead_ms,
            case when source.cloned_at is not null and source.rival_seen_at > now() - make_interval(secs => $2)
                then coalesce(source.rival_host, '') end as rival_host
         from job join source on source.id = job.source_id
         where job.id = any($1) and job.state not in ('finished', 'expired', 'deleting')",
        ids,
        domain::seat::TOLD_FOR.as_secs_f64(),
    )
    .fetch_all(connection)
    .await?;
    let warning = |rival_host: Option<String>, clock_ahead_ms| {
        domain::seat::warning(rival_host.as_deref(), clock_ahead_ms)
    };
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((row.id, warning(row.rival_host, row.clock_ahead_ms)?)))
        .collect())
}

/// Returns the disks of each job, by index.
pub(super) async fn disks_of_jobs(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<HashMap<String, Vec<JobDisk>>, StoreError> {
    let rows = sqlx::query!(
        r#"select job_id, job_disk.index, size_gib, source_disk.partitions as "partitions?: Json<Vec<SourcePartition>>",
            source_disk.path as "path?", source_disk.in_use as "in_use?"
        from job_disk join job on job.id = job_id
            left join source_disk on source_disk.source_id = job.source_id and source_disk.index = job_disk.index
        where job_id = any($1) order by job_disk.index"#,
        ids
    )
    .fetch_all(connection)
    .await?;
    let mut disks: HashMap<String, Vec<JobDisk>> = HashMap::new();
    for row in rows {
        let size_gib = u32::try_from(row.size_gib).map_err(|_| StoreError::UnknownValue {
            column: "job_disk.size_gib",
            value: row.size_gib.to_string(),
        })?;
        disks.entry(row.job_id).or_default().push(JobDisk {
            target: TargetDisk {
                index: disk_index("job_disk.index", row.index)?,
                size_gib,
            },
            partitions: row.partitions.map_or_else(Vec::new, |Json(found)| found),
            in_use: row
                .path
                .zip(row.in_use.filter(|by| !by.is_empty()))
                .map(|(path, by)| DiskInUse { path, by }),
        });
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_business_status_are_anded() {
        let states = |status, business_status| {
            JobFilter {
                status,
                business_status,
                ..JobFilter::default()
            }
            .states()
        };
        assert_eq!(states(None, None), None);
        let running = ["preparing", "syncing", "parked", "processing", "cleaning"];
        assert_eq!(states(Some(Status::Running), None), Some(running.to_vec()));
        assert_eq!(
            states(None, Some(BusinessStatus::Syncing)),
            Some(vec!["syncing", "parked"])
        );
        assert_eq!(
            states(Some(Status::Ready), Some(BusinessStatus::Syncing)),
            Some(Vec::new())
        );
    }
}
