//! Replication jobs as they are listed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::values::texts;
use super::{Id, TagFilter, Tags, operations, paged};

operations! {
    DescribeReplicationJobs -> DescribeReplicationJobsAnswer,
}

paged!(DescribeReplicationJobs: replication_jobs of ReplicationJob);

texts! {
    /// The status of a job.
    JobStatus {
        Ready = "Ready", Running = "Running", Stopped = "Stopped", InError = "InError", Waiting = "Waiting",
        Finished = "Finished", Expired = "Expired", Deleting = "Deleting",
    }

    /// The business status of a job that runs.
    JobBusinessStatus {
        Preparing = "Preparing", Syncing = "Syncing", Processing = "Processing", Cleaning = "Cleaning",
    }
}

/// Lists jobs, newest first. Filters are ANDed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeReplicationJobs {
    /// Ids of jobs.
    #[schema(max_items = 50, value_type = Option<Vec<Id>>)]
    pub job_id: Option<Vec<String>>,
    /// Ids of their sources.
    #[schema(max_items = 50, value_type = Option<Vec<Id>>)]
    pub source_id: Option<Vec<String>>,
    /// The exact name.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The region. Many clients send theirs with every call, and see that region's jobs only.
    #[schema(max_length = 64)]
    pub region_id: Option<String>,
    /// The status.
    pub status: Option<JobStatus>,
    /// The business status, which running jobs have.
    pub business_status: Option<JobBusinessStatus>,
    /// The page, from 1; default 1.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64)]
    pub page_number: Option<u32>,
    /// Rows on a page; default 10.
    #[schema(minimum = 1, maximum = 50)]
    pub page_size: Option<u32>,
    /// The type: every job here is a server migration, 0.
    #[schema(minimum = 0, maximum = 3)]
    pub job_type: Option<u32>,
    /// Ids of target instances: no job here has one.
    #[schema(max_items = 50, value_type = Option<Vec<Id>>)]
    pub instance_id: Option<Vec<String>>,
    /// The resource group: no job here is in one.
    #[schema(max_length = 128)]
    pub resource_group_id: Option<String>,
    /// The workgroup of their sources. Not part of SMC.
    #[schema(max_length = 128)]
    pub workgroup_id: Option<String>,
    /// Tags that are looked for.
    #[schema(max_items = 1000)]
    pub tag: Option<Vec<TagFilter>>,
}

/// Jobs on a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeReplicationJobsAnswer {
    /// The page.
    pub page_number: u32,
    /// Rows on a page at most.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: i64,
    /// The jobs of this page.
    pub replication_jobs: ReplicationJobs,
}

lists! {
    /// A list of jobs.
    ReplicationJobs { "ReplicationJob": ReplicationJob }
    /// A list of the data disks of a job.
    JobDataDisks { "DataDisk": JobDataDisk }
    /// A list of the partitions of a disk of a job.
    JobParts { "Part": JobPart }
    /// A list of the partitions of the system disk of a job.
    JobSystemDiskParts { "SystemDiskPart": JobPart }
    /// A list of the data disks of a job, as wholes.
    JobWholeDisks { "Data": JobWholeDisk }
    /// A list of the partitions of a disk of a job, with where they are.
    JobPlacedParts { "Part": JobPlacedPart }
    /// A list of the runs of a job.
    ReplicationJobRuns { "ReplicationJobRun": ReplicationJobRun }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicationJob {
    /// The job.
    pub job_id: String,
    /// Its source.
    pub source_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// The region of its image.
    pub region_id: String,
    /// Ready, Running, Stopped, InError, Waiting, Finished, Expired or Deleting.
    pub status: String,
    /// While Running: Preparing, Syncing, Processing or Cleaning.
    pub business_status: Option<String>,
    /// Percent, 0 to 100: in Syncing the share of durable bytes. Never falls inside a run; 100 is Finished or Waiting.
    pub progress: f64,
    /// Image.
    pub target_type: String,
    /// GiB.
    pub system_disk_size: Option<u32>,
    /// Its data disks.
    pub data_disks: JobDataDisks,
    /// The partitions of its system disk, where they are known.
    pub system_disk_parts: Option<JobSystemDiskParts>,
    /// Its disks as wholes.
    pub disks: JobDisks,
    /// 0, the public network, or 2, the private one of VSwitchId.
    pub net_mode: i32,
    /// Its vSwitch, if it has one.
    pub v_switch_id: Option<String>,
    /// Its VPC, if it has one.
    pub vpc_id: Option<String>,
    /// The image's name.
    pub image_name: String,
    /// The image, once it is delivered.
    pub image_id: Option<String>,
    /// The intermediate instance, while there is one.
    pub transition_instance_id: Option<String>,
    /// As given.
    pub replication_parameters: String,
    /// true for a job that delivers once.
    pub run_once: bool,
    /// Without RunOnce: hours from the start of one run to that of the next.
    pub frequency: Option<i32>,
    /// Without RunOnce: images that are kept.
    pub max_number_of_image_to_keep: Option<i32>,
    /// The last 50 runs, in their order.
    pub replication_job_runs: ReplicationJobRuns,
    /// Always 0: a server migration.
    pub job_type: i32,
    /// Time of its creation.
    pub creation_time: String,
    /// Time of its last start.
    pub start_time: Option<String>,
    /// Time at which its last run ended.
    pub end_time: Option<String>,
    /// Time of its scheduled start.
    pub scheduled_start_time: Option<String>,
    /// Time at which it expires.
    pub valid_time: String,
    /// Reason for which the last run failed; else empty.
    pub error_code: String,
    /// JSON text with what is known of: error_code, error_msg, doing, queue_position, run, bytes_durable, bytes_total,
    /// bytes_wire, bytes_free, copied_free_space (disk and reason), rate_bytes_per_sec, eta_secs, unreadable_ranges,
    /// unreadable_bytes, consistency (of what was copied: one moment in time, not one moment in time, or unknown),
    /// warnings (sentences, such as that a disk is used for writing on its source, that a second server has its key, or
    /// that its clock is off), transport, transport_reason.
    pub status_info: Option<String>,
    /// The workgroup that its source is in.
    pub workgroup_id: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

/// A data disk of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobDataDisk {
    /// Number of the disk, from 1.
    pub index: u16,
    /// GiB.
    pub size: u32,
    /// Its partitions, where they are known.
    pub parts: Option<JobParts>,
}

/// A partition of a job's disk. Disks are copied whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobPart {
    /// Always true: it is copied block by block.
    pub block: bool,
    /// Disk and partition, each from 0, such as 1_0; the system disk is 0.
    pub device: String,
    /// Its size.
    pub size_bytes: u64,
}

/// The disks of a job, as wholes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobDisks {
    /// The system disk.
    pub system: Option<JobWholeDisk>,
    /// The data disks, in the order of their indexes.
    pub data: JobWholeDisks,
}

/// A disk of a job, as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobWholeDisk {
    /// GiB.
    pub size: u32,
    /// Its partitions, where they are known.
    pub parts: Option<JobPlacedParts>,
}

/// A partition of a job's disk, with where it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobPlacedPart {
    /// Always true: it is copied block by block.
    pub block: bool,
    /// Its path on the source.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicationJobRun {
    /// The start's origin: Manual or Schedule.
    pub r#type: String,
    /// Time of its start.
    pub start_time: String,
    /// Time at which it delivered, failed or was stopped.
    pub end_time: Option<String>,
    /// The image that it delivered, while that is there.
    pub image_id: Option<String>,
}
