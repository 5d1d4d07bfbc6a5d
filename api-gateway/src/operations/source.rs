//! Migration sources: list, change, delete.

use domain::SourceId;
use domain::disk::{DiskIndex, SourceDisk, gib_rounded_up};
use domain::source::SourceState;
use domain::status_info::StatusInfo;
use smc::model::{
    DeleteSourceServer, DescribeSourceServers, DescribeSourceServersAnswer, Done,
    ModifySourceServerAttribute, RelatedJobType, SourceDataDisk, SourceDisks, SourceServer,
    SourceWholeDisk,
};
use store::source::{DeleteSource, ModifySource, Source, SourceChange, SourceFilter};
use store::tag::TaggedKind;

use super::{id, name, partitions, tag};
use crate::operation::{Call, Effect, Handle, Resource, Terms, page};
use crate::{Refusal, trace};

impl Handle for DescribeSourceServers {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: &[Resource::any("sourceServer")],
        refusals: tag::FILTER_REFUSALS,
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<DescribeSourceServersAnswer, Refusal> {
        let page = page(self.page_number, self.page_size);
        let mut filter = SourceFilter {
            ids: self.source_id,
            tags: tag::filters(self.tag)?,
            job_id: self.job_id,
            name: self.name,
            state: self.state.and_then(|state| state.as_str().parse().ok()),
            workgroup_id: self.workgroup_id,
            has_job: None,
        };
        let types = self.related_job_type;
        let is_asked = |kind| types.iter().flatten().any(|asked| *asked == kind);
        let is_of_none = match (
            is_asked(RelatedJobType::NotRelated),
            is_asked(RelatedJobType::Server),
        ) {
            (true, true) => false,
            (false, false) => types.is_some(),
            (_, has_job) => {
                filter.has_job = Some(has_job);
                false
            }
        };
        // No source has these properties, so a filter by them finds none.
        if is_of_none || self.resource_group_id.is_some() {
            filter.ids = Some(Vec::new());
        }
        let store = &call.gateway.store;
        let listed = store.sources(&call.tenant, &filter, page).await?;
        let ids = listed.rows.iter().map(|source| source.id.to_string());
        let tags = tag::of(&call, TaggedKind::Source, ids).await?;
        Ok(DescribeSourceServersAnswer {
            page_number: page.number,
            page_size: page.size,
            total_count: listed.total,
            source_servers: (listed.rows.into_iter())
                .map(|source| show(source, &tags))
                .collect(),
        })
    }
}

fn show(source: Source, tags: &tag::Shown) -> SourceServer {
    let system = source
        .disks
        .iter()
        .find(|disk| disk.index == DiskIndex::SYSTEM);
    let data = source
        .disks
        .iter()
        .filter(|disk| disk.index != DiskIndex::SYSTEM);
    let trouble = trouble(&source);
    SourceServer {
        source_id: source.id.to_string(),
        state: source.state.as_str().to_owned(),
        job_id: source.job_id.as_ref().map(ToString::to_string),
        replication_driver: "SMT".to_owned(),
        creation_time: source.created_at.to_string(),
        system_disk_size: system.map(|disk| gib_rounded_up(disk.size_bytes)),
        data_disks: data.clone().map(data_disk).collect(),
        system_disk_parts: system
            .and_then(|disk| partitions::of_source(disk.index, &disk.partitions)),
        disks: SourceDisks {
            system: system.map(whole_disk),
            data: data.map(whole_disk).collect(),
        },
        heartbeat_rate: source.heartbeat_secs,
        kernel_level: source.kernel_level,
        error_code: trouble.as_ref().map_or("", |(code, _)| code).to_owned(),
        status_info: status_info(trouble, source.warning),
        system_info: source.system_info.to_string(),
        workgroup_id: source.workgroup_id.map(|id| id.to_string()),
        tags: tags.of(source.id.as_str()),
        name: source.name,
        description: source.description,
        agent_version: source.agent_version,
        architecture: source.architecture,
        platform: source.platform,
    }
}

fn data_disk(disk: &SourceDisk) -> SourceDataDisk {
    SourceDataDisk {
        index: disk.index.0,
        size: gib_rounded_up(disk.size_bytes),
        path: disk.path.clone(),
        parts: partitions::of_source(disk.index, &disk.partitions),
    }
}

fn whole_disk(disk: &SourceDisk) -> SourceWholeDisk {
    SourceWholeDisk {
        offset: partitions::offset(&disk.partitions),
        size: gib_rounded_up(disk.size_bytes),
        logical_sector_bytes: disk.layout.logical_sector_bytes,
        physical_sector_bytes: disk.layout.physical_sector_bytes,
        partition_table: disk.layout.partition_table.clone(),
        path: disk.path.clone(),
        parts: partitions::of_source_with_types(&disk.partitions),
    }
}

/// Returns the failure of the source and warnings for its owner.
fn status_info(trouble: Option<(String, String)>, warning: Option<String>) -> Option<String> {
    let (error_code, error_msg) = trouble.unzip();
    let info = StatusInfo {
        error_code,
        error_msg,
        warnings: warning.into_iter().collect(),
        ..StatusInfo::default()
    };
    (info != StatusInfo::default()).then(|| info.to_json())
}

/// Returns the reason why the source is Unavailable, if it is.
fn trouble(source: &Source) -> Option<(String, String)> {
    if !source.online && source.state == SourceState::Unavailable {
        let message = format!(
            "The agent is silent since {}: start it, or check that it reaches the gateway.",
            source.last_seen_at
        );
        return Some(("SourceServer.Offline".to_owned(), message));
    }
    source.failure.clone()
}

impl Handle for ModifySourceServerAttribute {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[Resource::one("sourceServer", "SourceId")],
        refusals: &[
            "InvalidSourceId.NotFound",
            "SourceServerState.Invalid",
            "SourceServerName.Duplicate",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<SourceId>(&self.source_id, "SourceId")?;
        let change = SourceChange {
            name: name(self.name.as_ref()),
            description: self.description,
        };
        let store = &call.gateway.store;
        match store.modify_source(&call.tenant, &id, &change).await? {
            ModifySource::Modified => Ok(Done {}),
            ModifySource::NameTaken => Err(Refusal::new(
                "SourceServerName.Duplicate",
                "The specified source server name already exists. Please modify the source server name.",
            )),
            ModifySource::Deleting => Err(is_deleting()),
            ModifySource::NotFound => Err(Refusal::not_found("SourceId")),
        }
    }
}

impl Handle for DeleteSourceServer {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[Resource::one("sourceServer", "SourceId")],
        refusals: &[
            "InvalidSourceId.NotFound",
            "SourceServerState.Invalid",
            "SourceServer.WithRunningReplicationJob",
            "ReplicationJob.Related",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<SourceId>(&self.source_id, "SourceId")?;
        let force = self.force.unwrap_or(false);
        let store = &call.gateway.store;
        let deleted = store
            .delete_source(&call.tenant, &id, force, &trace::headers())
            .await?;
        match deleted {
            DeleteSource::Deleted => Ok(Done {}),
            DeleteSource::JobRuns(job) => Err(Refusal::new(
                "SourceServer.WithRunningReplicationJob",
                format!(
                    "The specified source server has related replication jobs that are running. Job {job} runs: stop it, or wait for its end."
                ),
            )),
            DeleteSource::HasJobs(jobs) => {
                let jobs: Vec<&str> = jobs.iter().map(domain::JobId::as_str).collect();
                Err(Refusal::new(
                    "ReplicationJob.Related",
                    format!(
                        "The specified source server has related replication jobs. Please delete replication jobs: {} before delete this source server.",
                        jobs.join(", ")
                    ),
                ))
            }
            DeleteSource::Deleting => Err(is_deleting()),
            DeleteSource::NotFound => Err(Refusal::not_found("SourceId")),
        }
    }
}

fn is_deleting() -> Refusal {
    invalid_state(
        SourceState::Deleting,
        &[
            SourceState::Unavailable,
            SourceState::Available,
            SourceState::InUse,
        ],
    )
}

/// Refuses a call that the source's state does not allow.
pub(super) fn invalid_state(state: SourceState, allowed: &[SourceState]) -> Refusal {
    let allowed: Vec<&str> = allowed.iter().map(|state| state.as_str()).collect();
    Refusal::new(
        "SourceServerState.Invalid",
        format!(
            "The specified source server status: {state} is invalid. This operation can only be performed in the following status: {}.",
            allowed.join(", ")
        ),
    )
}
