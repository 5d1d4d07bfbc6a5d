//! DescribeReplicationJobs.

use domain::disk::{DiskInUse, DiskIndex};
use domain::job::State;
use domain::job::progress::progress;
use domain::parameters::{Consistency, ReplicationParameters};
use domain::status_info::StatusInfo;
use serde_json::{Value, json};
use store::job::describe::{Job, JobDisk, JobFilter};
use store::tag::TaggedKind;

use super::{increments, partitions, tag};
use crate::Refusal;
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, PAGE_NUMBER, PAGE_SIZE, Resource, field, page};

pub(super) const DESCRIBE: Operation = Operation {
    name: "DescribeReplicationJobs",
    summary: "Lists jobs, newest first. Filters are ANDed.",
    parameters: &[
        Parameter::list("JobId.N", 50, Rule::Text(128), "Ids of jobs."),
        Parameter::list("SourceId.N", 50, Rule::Text(128), "Ids of their sources."),
        Parameter::optional("Name", Rule::Text(256), "The exact name."),
        Parameter::optional(
            "RegionId",
            Rule::Text(64),
            "The region. Many clients send theirs with every call, and see that region's jobs only.",
        ),
        Parameter::optional(
            "Status",
            Rule::OneOf(&[
                "Ready", "Running", "Stopped", "InError", "Waiting", "Finished", "Expired",
                "Deleting",
            ]),
            "The status.",
        ),
        Parameter::optional(
            "BusinessStatus",
            Rule::OneOf(&["Preparing", "Syncing", "Processing", "Cleaning"]),
            "The business status, which running jobs have.",
        ),
        PAGE_NUMBER,
        PAGE_SIZE,
        Parameter::optional(
            "JobType",
            Rule::Integer(0, 3),
            "The type: every job here is a server migration, 0.",
        ),
        Parameter::list(
            "InstanceId.N",
            50,
            Rule::Text(128),
            "Ids of target instances: no job here has one.",
        ),
        Parameter::optional(
            "ResourceGroupId",
            Rule::Text(128),
            "The resource group: no job here is in one.",
        ),
        Parameter::optional(
            "WorkgroupId",
            Rule::Text(128),
            "The workgroup of their sources. Not part of SMC.",
        ),
        tag::FILTER_KEY,
        tag::FILTER_VALUE,
    ],
    answer: &[
        field("PageNumber", "integer", "The page."),
        field("PageSize", "integer", "Rows on a page at most."),
        field("TotalCount", "integer", "Rows on all pages."),
        field(
            "ReplicationJobs.ReplicationJob[].JobId",
            "string",
            "The job.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].SourceId",
            "string",
            "Its source.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Name",
            "string",
            "Its name.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Description",
            "string",
            "Its description.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].RegionId",
            "string",
            "The region of its image.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Status",
            "string",
            "Ready, Running, Stopped, InError, Waiting, Finished, Expired or Deleting.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].BusinessStatus",
            "string",
            "While Running: Preparing, Syncing, Processing or Cleaning.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Progress",
            "number",
            "Percent, 0 to 100: in Syncing the share of durable bytes. Never falls inside a run; 100 is Finished or Waiting.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].TargetType",
            "string",
            "Image.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].SystemDiskSize",
            "integer",
            "GiB.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].DataDisks.DataDisk[].Index",
            "integer",
            "Which disk, from 1.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].DataDisks.DataDisk[].Size",
            "integer",
            "GiB.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].DataDisks.DataDisk[].Parts.Part[].Block",
            "boolean",
            "Whether it is copied block by block: always.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].DataDisks.DataDisk[].Parts.Part[].Device",
            "string",
            "Disk and partition, such as 1_0.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].DataDisks.DataDisk[].Parts.Part[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].SystemDiskParts.SystemDiskPart[].Block",
            "boolean",
            "Whether it is copied block by block: always.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].SystemDiskParts.SystemDiskPart[].Device",
            "string",
            "Disk and partition, such as 0_0.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].SystemDiskParts.SystemDiskPart[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.System.Parts.Part[].Block",
            "boolean",
            "Whether it is copied block by block: always.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.System.Parts.Part[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.System.Parts.Part[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.Data.Data[].Parts.Part[].Block",
            "boolean",
            "Whether it is copied block by block: always.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.Data.Data[].Parts.Part[].Path",
            "string",
            "Where it is on the source.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.Data.Data[].Parts.Part[].SizeBytes",
            "integer",
            "Its size.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.System.Size",
            "integer",
            "GiB of the system disk.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Disks.Data.Data[].Size",
            "integer",
            "GiB of the data disks, in the order of their indexes.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].NetMode",
            "integer",
            "0, the public network, or 2, the private one of VSwitchId.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].VSwitchId",
            "string",
            "Its vSwitch, if it has one.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].VpcId",
            "string",
            "Its VPC, if it has one.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ImageName",
            "string",
            "The image's name.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ImageId",
            "string",
            "The image, once it is delivered.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].TransitionInstanceId",
            "string",
            "The intermediate instance, while there is one.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ReplicationParameters",
            "string",
            "As given.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].RunOnce",
            "boolean",
            "Whether it delivers once.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Frequency",
            "integer",
            "Without RunOnce: hours from the start of one run to that of the next.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].MaxNumberOfImageToKeep",
            "integer",
            "Without RunOnce: images that are kept.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ReplicationJobRuns.ReplicationJobRun[].Type",
            "string",
            "Who started the run: Manual or Schedule. The last 50 runs are shown, in their order.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ReplicationJobRuns.ReplicationJobRun[].StartTime",
            "string",
            "When it was started.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ReplicationJobRuns.ReplicationJobRun[].EndTime",
            "string",
            "When it delivered, failed or was stopped.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ReplicationJobRuns.ReplicationJobRun[].ImageId",
            "string",
            "The image that it delivered, while that is there.",
        ),
        field("ReplicationJobs.ReplicationJob[].JobType", "integer", "0."),
        field(
            "ReplicationJobs.ReplicationJob[].CreationTime",
            "string",
            "When it was made.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].StartTime",
            "string",
            "When it was last started.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].EndTime",
            "string",
            "When its last run ended.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ScheduledStartTime",
            "string",
            "When it starts by itself.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ValidTime",
            "string",
            "When it expires.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].ErrorCode",
            "string",
            "Why the last run failed; else empty.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].StatusInfo",
            "string",
            "JSON text with what is known of: error_code, error_msg, doing, queue_position, run, bytes_durable, bytes_total, bytes_wire, bytes_free, copied_free_space (disk and reason), rate_bytes_per_sec, eta_secs, unreadable_ranges, unreadable_bytes, consistency (of what was copied: one moment in time, not one moment in time, or unknown), warnings (sentences, such as that a disk is used for writing on its source, that a second server has its key, or that its clock is off), transport, transport_reason.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].WorkgroupId",
            "string",
            "The workgroup that its source is in.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Tags.Tag[].Key",
            "string",
            "Key of a tag.",
        ),
        field(
            "ReplicationJobs.ReplicationJob[].Tags.Tag[].Value",
            "string",
            "Its value.",
        ),
    ],
    refusals: tag::FILTER_REFUSALS,
    effect: Effect::Reads,
    resources: &[Resource::any("replicationJob").in_asked_region()],
    handler: |call, arguments| Box::pin(describe(call, arguments)),
};

async fn describe(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let page = page(&arguments);
    // What no job has, none is found by.
    let is_of_none = arguments.integer("JobType").is_some_and(|kind| kind != 0)
        || arguments.texts("InstanceId.N").is_some()
        || arguments.text("ResourceGroupId").is_some();
    let mut filter = JobFilter {
        ids: arguments.texts("JobId.N"),
        tags: tag::filters(&arguments)?,
        source_ids: arguments.texts("SourceId.N"),
        name: arguments.text("Name").map(str::to_owned),
        workgroup_id: arguments.text("WorkgroupId").map(str::to_owned),
        region_id: arguments.text("RegionId").map(str::to_owned),
        status: arguments
            .text("Status")
            .and_then(|status| status.parse().ok()),
        business_status: arguments
            .text("BusinessStatus")
            .and_then(|status| status.parse().ok()),
    };
    if is_of_none {
        filter.ids = Some(Vec::new());
    }
    let listed = call.gateway.store.jobs(&call.tenant, &filter, page).await?;
    let ids = listed.rows.iter().map(|job| job.id.to_string());
    let tags = tag::of(&call, TaggedKind::Job, ids).await?;
    Ok(Answer::fields(json!({
        "PageNumber": page.number,
        "PageSize": page.size,
        "TotalCount": listed.total,
        "ReplicationJobs": list("ReplicationJob", listed.rows.iter().map(|job| show(job, &tags))),
    })))
}

fn whole_disk(disk: &JobDisk) -> Value {
    json!({
        "Size": disk.target.size_gib,
        "Parts": partitions::of_job_with_paths(&disk.partitions),
    })
}

fn show(job: &Job, tags: &tag::Shown) -> Value {
    let size = |disk: &JobDisk| disk.target.size_gib;
    let system = job
        .disks
        .iter()
        .find(|disk| disk.target.index == DiskIndex::SYSTEM);
    let data = job
        .disks
        .iter()
        .filter(|disk| disk.target.index != DiskIndex::SYSTEM);
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "JobId": job.id,
        "SourceId": job.source_id,
        "Name": job.name,
        "Description": job.description,
        "RegionId": job.region_id,
        "Status": job.state.status().as_str(),
        "BusinessStatus": job.state.business_status().map(domain::job::BusinessStatus::as_str),
        "Progress": progress(job.state, job.furthest, job.bytes_durable, job.bytes_total),
        "TargetType": job.target_type,
        "SystemDiskSize": system.map(size),
        "DataDisks": list("DataDisk", data.clone().map(|disk| json!({
            "Index": disk.target.index,
            "Size": size(disk),
            "Parts": partitions::of_job("Part", disk.target.index, &disk.partitions),
        }))),
        "SystemDiskParts": system.map(|disk| partitions::of_job("SystemDiskPart", DiskIndex::SYSTEM, &disk.partitions)),
        "Disks": {
            "System": system.map(whole_disk),
            "Data": list("Data", data.map(whole_disk)),
        },
        "NetMode": job.net_mode,
        "VSwitchId": optional(&job.vswitch_id),
        "VpcId": optional(&job.vpc_id),
        "ImageName": job.image_name,
        "ImageId": job.image_id,
        "TransitionInstanceId": job.instance_id,
        "ReplicationParameters": job.replication_parameters,
        "RunOnce": job.increments.is_none(),
        "Frequency": job.increments.map(|increments| increments.frequency_hours),
        "MaxNumberOfImageToKeep": job.increments.map(|increments| increments.images_to_keep),
        "ReplicationJobRuns": increments::runs(&job.runs),
        "JobType": 0,
        "CreationTime": job.created_at,
        "StartTime": job.started_at,
        "EndTime": job.ended_at,
        "ScheduledStartTime": job.scheduled_start_at,
        "ValidTime": job.valid_until,
        "ErrorCode": job.failure.as_ref().map_or("", |(code, _)| code),
        "StatusInfo": status_info(job),
        "WorkgroupId": job.workgroup_id,
        "Tags": tags.of(job.id.as_str()),
    })
}

/// What a run that has not copied everything yet may fail of, and what the owner must know of the source although it works.
fn warnings(job: &Job) -> Vec<String> {
    let parameters = ReplicationParameters::parse(&job.replication_parameters);
    let matters = parameters.is_ok_and(|asked| asked.consistency == Consistency::Crash);
    let in_use = job.disks.iter().filter_map(|disk| disk.in_use.as_ref());
    in_use
        .filter(|_| matters && job.state.may_copy())
        .map(DiskInUse::warning)
        .chain(job.source_warning.clone())
        .collect()
}

/// What is known of the run, and why it failed. What an earlier run reported does not count.
fn status_info(job: &Job) -> Option<String> {
    let is_of_this_run = job.observed.run.is_none_or(|run| run == job.run.0);
    let mut info = if is_of_this_run {
        job.observed.clone()
    } else {
        StatusInfo::default()
    };
    if !job.state.is_running() {
        info.doing = None;
        info.rate_bytes_per_sec = None;
        info.eta_secs = None;
    }
    if let Some((code, message)) = &job.failure {
        info.error_code = Some(code.clone());
        info.error_msg = Some(message.clone());
    }
    if let Some(position) = job.queue_position {
        info.queue_position = Some(position);
        info.doing = Some(format!(
            "waiting for a slot, number {position} in the queue"
        ));
    }
    if job.state == State::Preparing && info.doing.is_none() {
        info.doing = Some("waiting for a worker".to_owned());
    }
    if job.bytes_total > 0 {
        info.bytes_durable = Some(job.bytes_durable);
        info.bytes_total = Some(job.bytes_total);
    }
    if job.run.0 > 0 {
        info.run = Some(job.run.0);
    }
    info.warnings = warnings(job);
    (info != StatusInfo::default()).then(|| info.to_json())
}
