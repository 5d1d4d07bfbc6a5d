//! The tenant's sources, with their disks and the state that follows from what is known of each.

use std::collections::HashMap;

use domain::disk::{SourceDisk, SourcePartition};
use domain::source::SourceState;
use domain::{JobId, SourceId, TenantId, Timestamp, WorkgroupId};
use serde_json::Value;
use sqlx::types::Json;

use crate::row::{parse, parse_opt};
use crate::{Listed, Page, Store, StoreError};

/// A source.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its state.
    pub state: SourceState,
    /// Whether its agent was heard lately.
    pub online: bool,
    /// The most recent job of it.
    pub job_id: Option<JobId>,
    /// Such as `0.1.0`.
    pub agent_version: String,
    /// Such as `x86_64`.
    pub architecture: String,
    /// Such as `Ubuntu`.
    pub platform: String,
    /// As the API's `KernelLevel`.
    pub kernel_level: i32,
    /// JSON object with lower-case keys.
    pub system_info: Value,
    /// Seconds between two heartbeats.
    pub heartbeat_secs: i32,
    /// Code and sentence of what its agent complains of.
    pub failure: Option<(String, String)>,
    /// When it registered.
    pub created_at: Timestamp,
    /// When its agent was last heard.
    pub last_seen_at: Timestamp,
    /// The workgroup that it is in.
    pub workgroup_id: Option<WorkgroupId>,
    /// Its disks, by index.
    pub disks: Vec<SourceDisk>,
}

/// Which sources to list; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct SourceFilter {
    /// One of these.
    pub ids: Option<Vec<String>>,
    /// Whose most recent job is this one.
    pub job_id: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// In this state.
    pub state: Option<SourceState>,
    /// In this workgroup.
    pub workgroup_id: Option<String>,
    /// With a job, or without one.
    pub has_job: Option<bool>,
}

/// The circumstances that a state follows from, as columns for `unnest`: the filter by state is [`SourceState::derive`] turned around,
/// so that list and filter can't disagree.
fn circumstances(state: SourceState) -> (Vec<bool>, Vec<bool>, Vec<bool>) {
    let (mut deleting, mut healthy, mut has_job) = (Vec::new(), Vec::new(), Vec::new());
    for bits in 0..8_u8 {
        let (d, h, j) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
        if SourceState::derive(d, h, j) == state {
            deleting.push(d);
            healthy.push(h);
            has_job.push(j);
        }
    }
    (deleting, healthy, has_job)
}

impl Store {
    /// The tenant's sources, newest first.
    pub async fn sources(
        &self,
        tenant: &TenantId,
        filter: &SourceFilter,
        page: Page,
    ) -> Result<Listed<Source>, StoreError> {
        let (deleting, healthy, has_job) =
            filter.state.map_or_else(Default::default, circumstances);
        let start = self.page_ends.start(tenant, "source", filter, page);
        let rows = sqlx::query!(
            r#"
            with matching as not materialized (
                select id, created_at from source
                where tenant = $1 and ($2::text[] is null or id = any($2)) and ($4::text is null or name = $4)
                  and ($12::text is null or workgroup_id = $12)
                  and ($16::bool is null or exists (select 1 from job where job.source_id = source.id) = $16)
                  and ($3::text is null or id = (
                    select job.source_id from job
                    where job.tenant = $1 and job.id = $3 and not exists (
                        select 1 from job as newer
                        where newer.source_id = job.source_id and (newer.created_at, newer.id) > (job.created_at, job.id))))
                  and (not $6 or (
                        deleting,
                        last_seen_at > now() - make_interval(secs => $5) and failure_code is null,
                        exists (select 1 from job where job.source_id = source.id and job.state not in ('finished', 'deleting'))
                    ) in (select * from unnest($7::bool[], $8::bool[], $9::bool[])))
            ), page as materialized (
                select id from matching
                where (created_at, id) < (coalesce($13, 'infinity'::timestamptz), $14::text)
                order by created_at desc, id desc limit $10 offset $11
            )
            select id, name, description, deleting, last_seen_at > now() - make_interval(secs => $5) as "online!",
                exists (select 1 from job where job.source_id = source.id
                    and job.state not in ('finished', 'deleting')) as "has_job!",
                (select job.id from job where job.source_id = source.id
                    order by job.created_at desc, job.id desc limit 1) as job_id,
                agent_version, architecture, platform, kernel_level, system_info, heartbeat_secs, failure_code, failure_message,
                created_at, last_seen_at, workgroup_id,
                -- The first page says by itself how many rows there are, if it is not full.
                case when $15 or (select count(*) from page) >= $10 then (select count(*) from matching) end as total
            from page join source using (id)
            order by created_at desc, id desc
            "#,
            tenant.as_str(),
            filter.ids.as_deref(),
            filter.job_id,
            filter.name,
            super::offline_after_secs(),
            filter.state.is_some(),
            &deleting,
            &healthy,
            &has_job,
            page.limit(),
            start.offset(),
            filter.workgroup_id,
            start.behind_time(),
            start.behind_id(),
            page.number > 1,
            filter.has_job,
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?;
        let total = match rows.first() {
            Some(row) => row.total.unwrap_or(rows.len() as i64),
            // A page beyond the end has no row that could carry the count.
            None if page.number > 1 => {
                Box::pin(self.sources(tenant, filter, Page::ONE))
                    .await?
                    .total
            }
            None => 0,
        };
        start.ended(
            rows.len(),
            rows.last().map(|row| (row.created_at, row.id.as_str())),
        );
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let mut disks = self.disks_of_sources(tenant, &ids).await?;
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
                    created_at: row.created_at.into(),
                    last_seen_at: row.last_seen_at.into(),
                    workgroup_id: parse_opt("source.workgroup_id", row.workgroup_id.as_deref())?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Listed { rows, total })
    }

    async fn disks_of_sources(
        &self,
        tenant: &TenantId,
        ids: &[String],
    ) -> Result<HashMap<String, Vec<SourceDisk>>, StoreError> {
        let rows = sqlx::query!(
            r#"select source_id, index, path, size_bytes, used_bytes, partitions as "partitions: Json<Vec<SourcePartition>>"
            from source_disk where source_id = any($1) order by index"#,
            ids
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?;
        let mut disks: HashMap<String, Vec<SourceDisk>> = HashMap::new();
        for row in rows {
            let disk = super::disk(
                row.index,
                row.path,
                row.size_bytes,
                row.used_bytes,
                row.partitions.0,
            )?;
            disks.entry(row.source_id).or_default().push(disk);
        }
        Ok(disks)
    }
}
