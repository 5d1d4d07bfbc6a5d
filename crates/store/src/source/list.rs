//! The tenant's sources, with their disks and derived states.

use std::collections::HashMap;

use domain::disk::{DiskIdentity, DiskLayout, SourceDisk, SourcePartition};
use domain::source::SourceState;
use domain::tag::TagFilter;
use domain::{JobId, SourceId, TenantId, Timestamp, WorkgroupId};
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use crate::list::Matching;
use crate::row::{parse, parse_opt};
use crate::{Listed, Page, Store, StoreError};

/// A source.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Id of the source.
    pub id: SourceId,
    /// Name of the source.
    pub name: String,
    /// Description of the source.
    pub description: String,
    /// State of the source.
    pub state: SourceState,
    /// True if the source's agent reported lately.
    pub online: bool,
    /// The most recent job of the source.
    pub job_id: Option<JobId>,
    /// Version of the agent, such as `0.1.0`.
    pub agent_version: String,
    /// Architecture of the server, such as `x86_64`.
    pub architecture: String,
    /// Platform of the server, such as `Ubuntu`.
    pub platform: String,
    /// The API's `KernelLevel`.
    pub kernel_level: i32,
    /// JSON object with lower-case keys.
    pub system_info: Value,
    /// Seconds between two heartbeats.
    pub heartbeat_secs: i32,
    /// Code and sentence of the failure that the agent reports.
    pub failure: Option<(String, String)>,
    /// Warning for the owner of a source that works.
    pub warning: Option<String>,
    /// Time of the registration.
    pub created_at: Timestamp,
    /// Time of the agent's last report.
    pub last_seen_at: Timestamp,
    /// Workgroup of the source.
    pub workgroup_id: Option<WorkgroupId>,
    /// Disks of the source, by index.
    pub disks: Vec<SourceDisk>,
}

/// A filter for the list of sources; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct SourceFilter {
    /// Ids of the sources.
    pub ids: Option<Vec<String>>,
    /// Most recent job of the source.
    pub job_id: Option<String>,
    /// Name of the source.
    pub name: Option<String>,
    /// State of the source.
    pub state: Option<SourceState>,
    /// Workgroup of the source.
    pub workgroup_id: Option<String>,
    /// True for sources with a job, false for sources without.
    pub has_job: Option<bool>,
    /// Tags that the source must have, all of them.
    pub tags: Vec<TagFilter>,
}

/// Returns the condition that a source is in a state. It inverts [`SourceState::derive`], so that list and filter can't
/// disagree.
fn is_in(state: SourceState) -> String {
    let circumstances = (0..8_u8)
        .map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0))
        .filter(|(deleting, healthy, has_job)| {
            SourceState::derive(*deleting, *healthy, *has_job) == state
        })
        .map(|(deleting, healthy, has_job)| format!("({deleting}, {healthy}, {has_job})"))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "(deleting, last_seen_at > now() - make_interval(secs => {}) and failure_code is null,
          id in (select source_id from job where job.tenant = $1 and job.state not in ('finished', 'deleting'))) in ({circumstances})",
        super::offline_after_secs()
    )
}

impl Store {
    /// Returns the tenant's sources, newest first.
    pub async fn sources(
        &self,
        tenant: &TenantId,
        filter: &SourceFilter,
        page: Page,
    ) -> Result<Listed<Source>, StoreError> {
        let start = self.page_ends.start(tenant, "source", filter, page);
        let mut connection = self.connection_as(tenant).await?;
        let mut matching = Matching::of(tenant, "source", &filter.tags)
            .and_one_of("id", filter.ids.as_deref())
            .and("name = ?", filter.name.as_deref())
            .and("workgroup_id = ?", filter.workgroup_id.as_deref())
            .and(
                "(id in (select source_id from job where job.tenant = $1)) = ?",
                filter.has_job,
            )
            .and(
                "id = (select source_id from job where job.tenant = $1 and job.id = ? and not exists (
                    select 1 from job as newer
                    where newer.source_id = job.source_id and (newer.created_at, newer.id) > (job.created_at, job.id)))",
                filter.job_id.as_deref(),
            );
        if let Some(state) = filter.state {
            matching = matching.and_where(is_in(state));
        }
        let Listed { rows: ids, total } = matching.page(start, &mut connection).await?;
        let rows = sqlx::query!(
            r#"
            select id, name, description, deleting, last_seen_at > now() - make_interval(secs => $2) as "online!",
                exists (select 1 from job where job.source_id = source.id
                    and job.state not in ('finished', 'deleting')) as "has_job!",
                (select job.id from job where job.source_id = source.id
                    order by job.created_at desc, job.id desc limit 1) as job_id,
                agent_version, architecture, platform, kernel_level, system_info, heartbeat_secs, failure_code, failure_message,
                created_at, last_seen_at, workgroup_id, clock_ahead_ms,
                case when cloned_at is not null and rival_seen_at > now() - make_interval(secs => $3) then coalesce(rival_host, '') end
                    as rival_host
            from source where id = any($1)
            order by created_at desc, id desc
            "#,
            &ids,
            super::offline_after_secs(),
            domain::seat::TOLD_FOR.as_secs_f64(),
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut disks = disks_of_sources(&mut connection, &ids).await?;
        let rows = rows
            .into_iter()
            .map(|row| {
                Ok(Source {
                    disks: disks.remove(&row.id).unwrap_or_default(),
                    id: parse("source.id", &row.id)?,
                    name: row.name,
                    description: row.description,
                    state: SourceState::derive(
                        row.deleting,
                        row.online && row.failure_code.is_none(),
                        row.has_job,
                    ),
                    online: row.online,
                    job_id: parse_opt("job.id", row.job_id.as_deref())?,
                    agent_version: row.agent_version,
                    architecture: row.architecture,
                    platform: row.platform,
                    kernel_level: row.kernel_level,
                    system_info: row.system_info,
                    heartbeat_secs: row.heartbeat_secs,
                    failure: row
                        .failure_code
                        .map(|code| (code, row.failure_message.unwrap_or_default())),
                    warning: domain::seat::warning(row.rival_host.as_deref(), row.clock_ahead_ms),
                    created_at: row.created_at.into(),
                    last_seen_at: row.last_seen_at.into(),
                    workgroup_id: parse_opt("source.workgroup_id", row.workgroup_id.as_deref())?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Listed { rows, total })
    }
}

async fn disks_of_sources(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<HashMap<String, Vec<SourceDisk>>, StoreError> {
    let rows = sqlx::query!(
        r#"select source_id, index, path, size_bytes, used_bytes, partitions as "partitions: Json<Vec<SourcePartition>>",
            layout as "layout: Json<DiskLayout>", identity as "identity: Json<DiskIdentity>", in_use
        from source_disk where source_id = any($1) order by index"#,
        ids
    )
    .fetch_all(connection)
    .await?;
    let mut disks: HashMap<String, Vec<SourceDisk>> = HashMap::new();
    for row in rows {
        let disk = super::disk(
            row.index,
            row.path,
            row.size_bytes,
            row.used_bytes,
            super::DiskFacts {
                partitions: row.partitions,
                layout: row.layout,
                identity: row.identity,
                in_use: row.in_use,
            },
        )?;
        disks.entry(row.source_id).or_default().push(disk);
    }
    Ok(disks)
}
