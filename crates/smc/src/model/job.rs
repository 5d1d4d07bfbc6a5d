//! Making and driving replication jobs, one source to one image.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::values::texts;
use super::{Done, NewTag, operations};

operations! {
    CreateReplicationJob -> CreateReplicationJobAnswer,
    ModifyReplicationJobAttribute -> Done,
    StartReplicationJob -> Done,
    StopReplicationJob -> Done,
    DeleteReplicationJob -> Done,
    CutOverReplicationJob -> Done,
    ExplainReplicationJob -> ExplainReplicationJobAnswer,
}

texts! {
    /// The product of a job.
    TargetType ["x-any-case": true] { Image = "Image" }

    /// The type of a job that is made.
    MigrationType ["x-otherwise": "Server migrations are what this service offers: leave JobType out or 0."] {
        Server = "0",
    }

    /// 0, the public network, or 2, the private network of a vSwitch.
    NetMode { Public = "0", Private = "2" }
}

/// The size of a data disk in the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DataDiskSize {
    /// Index of the source's data disk.
    #[schema(required = true, minimum = 1, maximum = 16)]
    pub index: Option<u16>,
    /// GiB of that disk in the image; not smaller than the source's disk. Disks that are not named keep their size,
    /// rounded up to whole GiB.
    #[schema(required = true, minimum = 20, maximum = 32768)]
    pub size: Option<u32>,
}

/// Another way to give sizes of disks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DiskSizes {
    /// The system disk.
    pub system: Option<SystemDiskSize>,
    /// The data disks; the N-th is that with index N.
    #[schema(max_items = 16)]
    pub data: Option<Vec<WholeDataDiskSize>>,
}

/// The size of the system disk in the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct SystemDiskSize {
    /// Another way to give SystemDiskSize.
    #[schema(format = "system-disk-gib", minimum = 20, maximum = 2048)]
    pub size: Option<u32>,
}

/// The size of a data disk in the image, by its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WholeDataDiskSize {
    /// Another way to give the size of the data disk with index N.
    #[schema(minimum = 20, maximum = 32768)]
    pub size: Option<u32>,
}

/// Makes a job that migrates a source to an image, once or again and again. It is started by StartReplicationJob, or by
/// itself at ScheduledStartTime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateReplicationJob {
    /// The region of the image: the one of this service, which is the default, or another that its operator has given
    /// to the account.
    #[schema(max_length = 64)]
    pub region_id: Option<String>,
    /// The source, which must be Available.
    #[schema(max_length = 128)]
    pub source_id: String,
    /// GiB of the image's system disk: 20 to 500, unless the operator allows more; not smaller than the source's disk.
    /// Mandatory without Disks.System.Size.
    #[schema(format = "system-disk-gib", minimum = 20, maximum = 2048)]
    pub system_disk_size: Option<u32>,
    /// Sizes of data disks.
    #[schema(max_items = 16)]
    pub data_disk: Option<Vec<DataDiskSize>>,
    /// Another way to give sizes of disks.
    pub disks: Option<DiskSizes>,
    /// Makes repeating the call safe: the same token with the same parameters answers with the same job, for 24 hours.
    #[schema(format = "ascii", max_length = 64)]
    pub client_token: Option<String>,
    /// The job's name, unique in the account; default `Job_<JobId>`.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub name: Option<String>,
    /// The job's description; the rule is that of names.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub description: Option<String>,
    /// The product of the job; default Image.
    pub target_type: Option<TargetType>,
    /// The image's name; default `Image_<JobId>`. With RunOnce=false, `_CYCLE_` and the number of the run are added; if
    /// another image has the name, the job's id.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub image_name: Option<String>,
    /// 0, the public network, which is the default; 2, the private network of VSwitchId: agents reach receivers under
    /// the address that the operator has given it.
    pub net_mode: Option<NetMode>,
    /// A vSwitch that the operator has configured for the account. NetMode 2 needs it.
    #[schema(max_length = 128)]
    pub v_switch_id: Option<String>,
    /// The VPC of VSwitchId, from which it follows; another is refused. Without a vSwitch, a VPC of the job's region.
    #[schema(max_length = 128)]
    pub vpc_id: Option<String>,
    /// JSON text of at most 2048 characters: bandwidth_limit (Kbit/s, 0 for none), compress_level (0 to 19), checksum
    /// (re-read and compare the copied disks), bad_sectors (fail, or zero to copy what can't be read as zeros),
    /// use_ssh_tunnel (copy over TLS on TCP only, encrypted as always), efficiency_level (1, 2 or 3: one, two or four
    /// threads of the source read and send; 2 without it), free_space (skip, the default: what the file systems of a
    /// disk that nobody uses call free stays behind, and the image has zeros there; copy: every byte), consistency
    /// (crash, the default: the image is what the disks held at one moment, and a disk that is written while it is
    /// copied ends the run with SourceServer.DiskChanged; fuzzy: the image is delivered all the same, and said to be
    /// not one moment in time).
    #[schema(max_length = 2048, content_media_type = "application/json")]
    pub replication_parameters: Option<String>,
    /// Time of the job's scheduled start: in the future, within 30 days and within its validity.
    #[schema(format = DateTime)]
    pub scheduled_start_time: Option<String>,
    /// Time at which the job expires: 7 to 90 days from now; default 30 days.
    #[schema(format = DateTime)]
    pub valid_time: Option<String>,
    /// Its tags.
    #[schema(max_items = 1000)]
    pub tag: Option<Vec<NewTag>>,
    /// false for a job that delivers again and again: a full image each time, until CutOverReplicationJob; default
    /// true.
    pub run_once: Option<bool>,
    /// Hours from the start of one run to that of the next. Only for jobs with RunOnce=false, for which it is
    /// mandatory.
    #[schema(minimum = 1, maximum = 168)]
    pub frequency: Option<i32>,
    /// Images that are kept: when one more is delivered, the oldest is deleted. Only for jobs with RunOnce=false, for
    /// which it is mandatory.
    #[schema(minimum = 1, maximum = 10)]
    pub max_number_of_image_to_keep: Option<i32>,
    /// 0, a server migration.
    pub job_type: Option<MigrationType>,
}

/// A job that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateReplicationJobAnswer {
    /// The job.
    pub job_id: String,
}

/// Changes a job: Name and Description for all its life, ValidTime and bandwidth_limit in ReplicationParameters until
/// it has delivered or expired, consistency there as well while it does not run, Frequency and MaxNumberOfImageToKeep
/// in Ready and Waiting, the rest in Ready only. What is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ModifyReplicationJobAttribute {
    /// The job.
    #[schema(max_length = 128)]
    pub job_id: String,
    /// The new name, unique in the account.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub name: Option<String>,
    /// The new description.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub description: Option<String>,
    /// Time at which the job expires: 7 to 90 days after its creation.
    #[schema(format = DateTime)]
    pub valid_time: Option<String>,
    /// Image, which is what every job delivers.
    pub target_type: Option<TargetType>,
    /// The new name of the image.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub image_name: Option<String>,
    /// Time of the job's scheduled start.
    #[schema(format = DateTime)]
    pub scheduled_start_time: Option<String>,
    /// GiB of the image's system disk.
    #[schema(format = "system-disk-gib", minimum = 20, maximum = 2048)]
    pub system_disk_size: Option<u32>,
    /// Sizes of data disks.
    #[schema(max_items = 16)]
    pub data_disk: Option<Vec<DataDiskSize>>,
    /// As for CreateReplicationJob; takes the place of what the job has. After the first start only bandwidth_limit may
    /// differ from that, which a run takes up within seconds, without beginning anew; and, while the job does not run,
    /// consistency.
    #[schema(max_length = 2048, content_media_type = "application/json")]
    pub replication_parameters: Option<String>,
    /// 0, the public network, which is the default; 2, the private network of VSwitchId: agents reach receivers under
    /// the address that the operator has given it.
    pub net_mode: Option<NetMode>,
    /// A vSwitch that the operator has configured for the account. NetMode 2 needs it.
    #[schema(max_length = 128)]
    pub v_switch_id: Option<String>,
    /// The VPC of VSwitchId, from which it follows; another is refused. Without a vSwitch, a VPC of the job's region.
    #[schema(max_length = 128)]
    pub vpc_id: Option<String>,
    /// Hours from the start of one run to that of the next. Only for jobs with RunOnce=false, for which it is
    /// mandatory.
    #[schema(minimum = 1, maximum = 168)]
    pub frequency: Option<i32>,
    /// Images that are kept: when one more is delivered, the oldest is deleted. Only for jobs with RunOnce=false, for
    /// which it is mandatory.
    #[schema(minimum = 1, maximum = 10)]
    pub max_number_of_image_to_keep: Option<i32>,
}

/// Starts a job that is Ready, Stopped, InError or Waiting. Its source must be online. A stopped or failed job goes on
/// from what was copied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct StartReplicationJob {
    /// The job.
    #[schema(max_length = 128)]
    pub job_id: String,
}

/// Stops a job that is Running in Syncing, or Waiting. What was copied is kept. The job is Stopped within seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct StopReplicationJob {
    /// The job.
    #[schema(max_length = 128)]
    pub job_id: String,
}

/// Deletes a job that is not running. It is Deleting until its intermediate resources are gone; its image stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteReplicationJob {
    /// The job.
    #[schema(max_length = 128)]
    pub job_id: String,
}

/// Ends a job that delivers again and again, while it is Waiting: at once, or with SyncData after one more run. Its
/// images stay. A last run that fails or is stopped stays the last one: StartReplicationJob starts it again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CutOverReplicationJob {
    /// The job.
    #[schema(max_length = 128)]
    pub job_id: String,
    /// Deliver once more before the job is Finished, for which the source must be online; default false.
    pub sync_data: Option<bool>,
}

/// Says in sentences why a job is where it is and what happens next, with its history. Not part of SMC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainReplicationJob {
    /// The job.
    #[schema(max_length = 128)]
    pub job_id: String,
}

/// The reason for a job's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExplainReplicationJobAnswer {
    /// The job.
    pub job_id: String,
    /// Its status.
    pub status: String,
    /// Its business status, while Running.
    pub business_status: Option<String>,
    /// Its present activity, or the condition that it waits for.
    pub now: String,
    /// The next step, and who takes it.
    pub next: String,
    /// Circumstances that bear on it.
    pub reasons: Reasons,
    /// Its events, oldest first.
    pub events: JobEvents,
}

lists! {
    /// A list of sentences.
    Reasons { "Reason": String }
    /// A list of events of a job.
    JobEvents { "Event": JobEvent }
}

/// An event of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobEvent {
    /// Time of the event.
    pub time: String,
    /// The event.
    pub event: String,
    /// The state before.
    pub from: String,
    /// The state since.
    pub to: String,
    /// In which run.
    pub run: i32,
    /// Under which epoch.
    pub epoch: i64,
    /// The source of the event.
    pub actor: String,
    /// More about it.
    pub detail: String,
}
