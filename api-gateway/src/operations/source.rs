//! Migration sources: list, change, delete.

use domain::SourceId;
use domain::disk::{DiskIndex, SourceDisk, gib_rounded_up};
use domain::source::SourceState;
use domain::status_info::StatusInfo;
use serde_json::{Value, json};
use store::source::{DeleteSource, ModifySource, Source, SourceChange, SourceFilter};
use store::tag::TaggedKind;

use super::{partitions, tag};
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, PAGE_NUMBER, PAGE_SIZE, Resource, field, page};
use crate::{Refusal, trace};

pub(super) const DESCRIBE: Operation = Operation {
    name: "DescribeSourceServers",
    summary: "Lists migration sources, newest first. Filters are ANDed.",
    parameters: &[
        Parameter::list("SourceId.N", 100, Rule::Text(128), "Ids of sources."),
        Parameter::optional(
            "JobId",
            Rule::Text(128),
            "Sources whose most recent job this is.",
        ),
        Parameter::optional("Name", Rule::Text(256), "The exact name."),
        Parameter::optional(
            "State",
            Rule::OneOf(&["Unavailable", "Available", "InUse", "Deleting"]),
            "The state.",
        ),
        PAGE_NUMBER,
        PAGE_SIZE,
        Parameter::optional("WorkgroupId", Rule::Text(128), "The workgroup."),
        Parameter::optional(
            "ResourceGroupId",
            Rule::Text(128),
            "The resource group: no source here is in one.",
        ),
        Parameter::list(
            "RelatedJobType.N",
            6,
            Rule::OneOf(&[
                "Not_Related",
                "Server",
                "Os",
                "Cross_Zone",
                "VMWare",
                "Desktop",
            ]),
            "Types of their jobs, ORed: Not_Related for sources without a job, Server for those with one. No job here is of another type.",
        ),
        tag::FILTER_KEY,
        tag::FILTER_VALUE,
    ],
    answer: &[
        field("PageNumber", "integer", "The page."),
        field("PageSize", "integer", "Rows on a page at most."),
        field("TotalCount", "integer", "Rows on all pages."),
        field(
            "SourceServers.SourceServer[].SourceId",
            "string",
            "The source.",
        ),
        field("SourceServers.SourceServer[].Name", "string", "Its name."),
        field(
            "SourceServers.SourceServer[].Description",
            "string",
            "Its description.",
        ),
        field(
            "SourceServers.SourceServer[].State",
            "string",
            "Unavailable, Available, InUse or Deleting.",
        ),
        field(
            "SourceServers.SourceServer[].JobId",
            "string",
            "Its most recent job.",
        ),
        field(
            "SourceServers.SourceServer[].AgentVersion",
            "string",
            "Version of its agent.",
        ),
        field(
            "SourceServers.SourceServer[].Architecture",
            "string",
            "Such as x86_64.",
        ),
        field(
            "SourceServers.SourceServer[].Platform",
            "string",
            "Such as Debian.",
        ),
        field(
            "SourceServers.SourceServer[].ReplicationDriver",
            "string",
            "Always SMT.",
        ),
        field(
            "SourceServers.SourceServer[].CreationTime",
            "string",
            "When it registered.",
        ),
        field(
            "SourceServers.SourceServer[].SystemDiskSize",
            "integer",
            "GiB, rounded up.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Index",
            "integer",
            "Which disk, from 1.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Size",
            "integer",
            "GiB, rounded up.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Parts.Part[].CanBlock",
            "boolean",
            "Whether it can be copied block by block: always.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Parts.Part[].Device",
            "string",
            "Disk and partition of the data disk, such as 1_0.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Parts.Part[].Need",
            "boolean",
            "Whether it has to be copied: always.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Parts.Part[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "SourceServers.SourceServer[].DataDisks.DataDisk[].Parts.Part[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "SourceServers.SourceServer[].SystemDiskParts.SystemDiskPart[].CanBlock",
            "boolean",
            "Whether it can be copied block by block: always.",
        ),
        field(
            "SourceServers.SourceServer[].SystemDiskParts.SystemDiskPart[].Device",
            "string",
            "Disk and partition of the system disk, such as 0_0.",
        ),
        field(
            "SourceServers.SourceServer[].SystemDiskParts.SystemDiskPart[].Need",
            "boolean",
            "Whether it has to be copied: always.",
        ),
        field(
            "SourceServers.SourceServer[].SystemDiskParts.SystemDiskPart[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "SourceServers.SourceServer[].SystemDiskParts.SystemDiskPart[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Offset",
            "integer",
            "Bytes before the first partition of the system disk.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Size",
            "integer",
            "GiB, rounded up.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.LogicalSectorBytes",
            "integer",
            "Bytes of a sector, as programs address them; absent for a file. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.PhysicalSectorBytes",
            "integer",
            "Bytes of a sector, as the disk writes them; absent for a file. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.PartitionTable",
            "string",
            "Kind of its partition table: gpt, dos, none or another name; absent where it is not known. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Path",
            "string",
            "Where it is on the source. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Parts.Part[].CanBlock",
            "boolean",
            "Whether it can be copied block by block: always.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Parts.Part[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Parts.Part[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.System.Parts.Part[].Type",
            "string",
            "System if the root file system lies in it, Boot if the server begins with it, else Normal.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Offset",
            "integer",
            "Bytes before the first partition of the data disks, in the order of their indexes.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Size",
            "integer",
            "GiB, rounded up.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].LogicalSectorBytes",
            "integer",
            "Bytes of a sector, as programs address them; absent for a file. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].PhysicalSectorBytes",
            "integer",
            "Bytes of a sector, as the disk writes them; absent for a file. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].PartitionTable",
            "string",
            "Kind of its partition table: gpt, dos, none or another name; absent where it is not known. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Path",
            "string",
            "Where it is on the source. Not part of SMC.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Parts.Part[].CanBlock",
            "boolean",
            "Whether it can be copied block by block: always.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Parts.Part[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Parts.Part[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "SourceServers.SourceServer[].Disks.Data.Data[].Parts.Part[].Type",
            "string",
            "System if the root file system lies in it, Boot if the server begins with it, else Normal.",
        ),
        field(
            "SourceServers.SourceServer[].HeartbeatRate",
            "integer",
            "Seconds between two heartbeats.",
        ),
        field(
            "SourceServers.SourceServer[].KernelLevel",
            "integer",
            "1 or more: its disks can be read.",
        ),
        field(
            "SourceServers.SourceServer[].ErrorCode",
            "string",
            "Why it is Unavailable; else empty.",
        ),
        field(
            "SourceServers.SourceServer[].StatusInfo",
            "string",
            "JSON text with error_code and error_msg, when it is Unavailable, and with warnings: a second server with its key, a clock that is off.",
        ),
        field(
            "SourceServers.SourceServer[].SystemInfo",
            "string",
            "JSON text with cores, hostname, ipv4, memory …",
        ),
        field(
            "SourceServers.SourceServer[].WorkgroupId",
            "string",
            "The workgroup that it is in.",
        ),
        field(
            "SourceServers.SourceServer[].Tags.Tag[].Key",
            "string",
            "Key of a tag.",
        ),
        field(
            "SourceServers.SourceServer[].Tags.Tag[].Value",
            "string",
            "Its value.",
        ),
    ],
    refusals: tag::FILTER_REFUSALS,
    effect: Effect::Reads,
    resources: &[Resource::any("sourceServer")],
    handler: |call, arguments| Box::pin(describe(call, arguments)),
};

async fn describe(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let page = page(&arguments);
    let mut filter = SourceFilter {
        ids: arguments.texts("SourceId.N"),
        tags: tag::filters(&arguments)?,
        job_id: arguments.text("JobId").map(str::to_owned),
        name: arguments.text("Name").map(str::to_owned),
        state: arguments.text("State").and_then(|state| state.parse().ok()),
        workgroup_id: arguments.text("WorkgroupId").map(str::to_owned),
        has_job: None,
    };
    let types = arguments.texts("RelatedJobType.N");
    let is_asked = |kind: &str| types.iter().flatten().any(|asked| asked == kind);
    let is_of_none = match (is_asked("Not_Related"), is_asked("Server")) {
        (true, true) => false,
        (false, false) => types.is_some(),
        (_, has_job) => {
            filter.has_job = Some(has_job);
            false
        }
    };
    // What no source has, none is found by.
    if is_of_none || arguments.text("ResourceGroupId").is_some() {
        filter.ids = Some(Vec::new());
    }
    let listed = call
        .gateway
        .store
        .sources(&call.tenant, &filter, page)
        .await?;
    let ids = listed.rows.iter().map(|source| source.id.to_string());
    let tags = tag::of(&call, TaggedKind::Source, ids).await?;
    Ok(Answer::fields(json!({
        "PageNumber": page.number,
        "PageSize": page.size,
        "TotalCount": listed.total,
        "SourceServers": list("SourceServer", listed.rows.into_iter().map(|source| show(source, &tags))),
    })))
}

fn show(source: Source, tags: &tag::Shown) -> Value {
    let system = source
        .disks
        .iter()
        .find(|disk| disk.index == DiskIndex::SYSTEM);
    let data = source
        .disks
        .iter()
        .filter(|disk| disk.index != DiskIndex::SYSTEM);
    let trouble = trouble(&source);
    json!({
        "SourceId": source.id,
        "Name": source.name,
        "Description": source.description,
        "State": source.state.as_str(),
        "JobId": source.job_id,
        "AgentVersion": source.agent_version,
        "Architecture": source.architecture,
        "Platform": source.platform,
        "ReplicationDriver": "SMT",
        "CreationTime": source.created_at,
        "SystemDiskSize": system.map(|disk| gib_rounded_up(disk.size_bytes)),
        "DataDisks": list("DataDisk", data.clone().map(|disk| json!({
            "Index": disk.index,
            "Size": gib_rounded_up(disk.size_bytes),
            "Path": disk.path,
            "Parts": partitions::of_source("Part", disk.index, &disk.partitions),
        }))),
        "SystemDiskParts": system.map(|disk| partitions::of_source("SystemDiskPart", disk.index, &disk.partitions)),
        "Disks": {
            "System": system.map(whole_disk),
            "Data": list("Data", data.map(whole_disk)),
        },
        "HeartbeatRate": source.heartbeat_secs,
        "KernelLevel": source.kernel_level,
        "ErrorCode": trouble.as_ref().map_or("", |(code, _)| code),
        "StatusInfo": status_info(trouble, source.warning),
        "SystemInfo": source.system_info.to_string(),
        "WorkgroupId": source.workgroup_id,
        "Tags": tags.of(source.id.as_str()),
    })
}

fn whole_disk(disk: &SourceDisk) -> Value {
    json!({
        "Offset": partitions::offset(&disk.partitions),
        "Size": gib_rounded_up(disk.size_bytes),
        "LogicalSectorBytes": disk.layout.logical_sector_bytes,
        "PhysicalSectorBytes": disk.layout.physical_sector_bytes,
        "PartitionTable": disk.layout.partition_table,
        "Path": disk.path,
        "Parts": partitions::of_source_with_types(&disk.partitions),
    })
}

/// What keeps the source from working, and what its owner must know all the same.
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

/// Why the source is Unavailable, if it is.
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

pub(super) const MODIFY: Operation = Operation {
    name: "ModifySourceServerAttribute",
    summary: "Changes name or description of a source. What is not given stays.",
    parameters: &[
        Parameter::required("SourceId", Rule::Text(128), "The source."),
        Parameter::optional("Name", Rule::Name, "The new name, unique in the account."),
        Parameter::optional(
            "Description",
            Rule::SourceDescription,
            "The new description; empty clears it.",
        ),
    ],
    answer: &[],
    refusals: &[
        "InvalidSourceId.NotFound",
        "SourceServerState.Invalid",
        "SourceServerName.Duplicate",
    ],
    effect: Effect::Writes,
    resources: &[Resource::one("sourceServer", "SourceId")],
    handler: |call, arguments| Box::pin(modify(call, arguments)),
};

async fn modify(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = source_id(&arguments)?;
    let change = SourceChange {
        name: arguments.name("Name").cloned(),
        description: arguments.text("Description").map(str::to_owned),
    };
    match call
        .gateway
        .store
        .modify_source(&call.tenant, &id, &change)
        .await?
    {
        ModifySource::Modified => Ok(Answer::done()),
        ModifySource::NameTaken => Err(Refusal::new(
            "SourceServerName.Duplicate",
            "The specified source server name already exists. Please modify the source server name.",
        )),
        ModifySource::Deleting => Err(invalid_state(
            SourceState::Deleting,
            &[
                SourceState::Unavailable,
                SourceState::Available,
                SourceState::InUse,
            ],
        )),
        ModifySource::NotFound => Err(Refusal::not_found("SourceId")),
    }
}

pub(super) const DELETE: Operation = Operation {
    name: "DeleteSourceServer",
    summary: "Deletes a source; with Force also its jobs and their intermediate resources, unless one runs.",
    parameters: &[
        Parameter::required("SourceId", Rule::Text(128), "The source."),
        Parameter::optional(
            "Force",
            Rule::Boolean,
            "Delete its jobs as well; default false.",
        ),
    ],
    answer: &[],
    refusals: &[
        "InvalidSourceId.NotFound",
        "SourceServerState.Invalid",
        "SourceServer.WithRunningReplicationJob",
        "ReplicationJob.Related",
    ],
    effect: Effect::Writes,
    resources: &[Resource::one("sourceServer", "SourceId")],
    handler: |call, arguments| Box::pin(delete(call, arguments)),
};

async fn delete(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = source_id(&arguments)?;
    let force = arguments.boolean("Force").unwrap_or(false);
    let deleted = call
        .gateway
        .store
        .delete_source(&call.tenant, &id, force, &trace::headers())
        .await?;
    match deleted {
        DeleteSource::Deleted => Ok(Answer::done()),
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
        DeleteSource::Deleting => Err(invalid_state(
            SourceState::Deleting,
            &[
                SourceState::Unavailable,
                SourceState::Available,
                SourceState::InUse,
            ],
        )),
        DeleteSource::NotFound => Err(Refusal::not_found("SourceId")),
    }
}

/// The id that the call names. A text that is no id names nothing.
pub(super) fn source_id(arguments: &Arguments) -> Result<SourceId, Refusal> {
    arguments
        .required_text("SourceId")
        .parse()
        .map_err(|_| Refusal::not_found("SourceId"))
}

/// The source's state does not allow it.
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
