//! Migration sources.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::values::texts;
use super::{Done, Id, TagFilter, Tags, operations, paged};

operations! {
    DescribeSourceServers -> DescribeSourceServersAnswer,
    ModifySourceServerAttribute -> Done,
    DeleteSourceServer -> Done,
}

paged!(DescribeSourceServers: source_servers of SourceServer);

texts! {
    /// The state of a source.
    SourceState { Unavailable = "Unavailable", Available = "Available", InUse = "InUse", Deleting = "Deleting" }

    /// A type of jobs, or none.
    RelatedJobType {
        NotRelated = "Not_Related", Server = "Server", Os = "Os", CrossZone = "Cross_Zone", VmWare = "VMWare",
        Desktop = "Desktop",
    }
}

/// Lists migration sources, newest first. Filters are ANDed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSourceServers {
    /// Ids of sources.
    #[schema(max_items = 100, value_type = Option<Vec<Id>>)]
    pub source_id: Option<Vec<String>>,
    /// Sources whose most recent job this is.
    #[schema(max_length = 128)]
    pub job_id: Option<String>,
    /// The exact name.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The state.
    pub state: Option<SourceState>,
    /// The page, from 1; default 1.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64)]
    pub page_number: Option<u32>,
    /// Rows on a page; default 10.
    #[schema(minimum = 1, maximum = 50)]
    pub page_size: Option<u32>,
    /// The workgroup.
    #[schema(max_length = 128)]
    pub workgroup_id: Option<String>,
    /// The resource group: no source here is in one.
    #[schema(max_length = 128)]
    pub resource_group_id: Option<String>,
    /// Types of their jobs, ORed: Not_Related for sources without a job, Server for those with one. No job here is of
    /// another type.
    #[schema(max_items = 6)]
    pub related_job_type: Option<Vec<RelatedJobType>>,
    /// Tags that are looked for.
    #[schema(max_items = 1000)]
    pub tag: Option<Vec<TagFilter>>,
}

/// Sources on a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeSourceServersAnswer {
    /// The page.
    pub page_number: u32,
    /// Rows on a page at most.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: i64,
    /// The sources of this page.
    pub source_servers: SourceServers,
}

lists! {
    /// A list of sources.
    SourceServers { "SourceServer": SourceServer }
    /// A list of the data disks of a source.
    SourceDataDisks { "DataDisk": SourceDataDisk }
    /// A list of the partitions of a disk of a source.
    SourceParts { "Part": SourcePart }
    /// A list of the partitions of the system disk of a source.
    SourceSystemDiskParts { "SystemDiskPart": SourcePart }
    /// A list of the data disks of a source, as wholes.
    SourceWholeDisks { "Data": SourceWholeDisk }
    /// A list of the partitions of a disk of a source, with what each is for.
    SourceTypedParts { "Part": SourceTypedPart }
}

/// A source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SourceServer {
    /// The source.
    pub source_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Unavailable, Available, InUse or Deleting.
    pub state: String,
    /// Its most recent job.
    pub job_id: Option<String>,
    /// Version of its agent.
    pub agent_version: String,
    /// Such as x86_64.
    pub architecture: String,
    /// Such as Debian.
    pub platform: String,
    /// Always SMT.
    pub replication_driver: String,
    /// Time of its registration.
    pub creation_time: String,
    /// GiB, rounded up.
    pub system_disk_size: Option<u64>,
    /// Its data disks.
    pub data_disks: SourceDataDisks,
    /// The partitions of its system disk, where they are known.
    pub system_disk_parts: Option<SourceSystemDiskParts>,
    /// Its disks as wholes.
    pub disks: SourceDisks,
    /// Seconds between two heartbeats.
    pub heartbeat_rate: i32,
    /// 1 or more: its disks can be read.
    pub kernel_level: i32,
    /// Reason for which it is Unavailable; else empty.
    pub error_code: String,
    /// JSON text with error_code and error_msg, when it is Unavailable, and with warnings: a second server with its
    /// key, a clock that is off.
    pub status_info: Option<String>,
    /// JSON text with cores, hostname, ipv4, memory …
    pub system_info: String,
    /// The workgroup that it is in.
    pub workgroup_id: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

/// A data disk of a source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SourceDataDisk {
    /// Number of the disk, from 1.
    pub index: u16,
    /// GiB, rounded up.
    pub size: u64,
    /// Its path on the source.
    pub path: String,
    /// Its partitions, where they are known.
    pub parts: Option<SourceParts>,
}

/// A partition of a source's disk. Disks are copied whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SourcePart {
    /// Always true: it can be copied block by block.
    pub can_block: bool,
    /// Disk and partition, each from 0, such as 1_0; the system disk is 0.
    pub device: String,
    /// Always true: it has to be copied.
    pub need: bool,
    /// Its path on the source.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
}

/// The disks of a source, as wholes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SourceDisks {
    /// The system disk.
    pub system: Option<SourceWholeDisk>,
    /// The data disks, in the order of their indexes.
    pub data: SourceWholeDisks,
}

/// A disk of a source, as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SourceWholeDisk {
    /// Bytes before its first partition.
    pub offset: u64,
    /// GiB, rounded up.
    pub size: u64,
    /// Bytes of a sector, as programs address them; absent for a file. Not part of SMC.
    pub logical_sector_bytes: Option<u32>,
    /// Bytes of a sector, as the disk writes them; absent for a file. Not part of SMC.
    pub physical_sector_bytes: Option<u32>,
    /// Kind of its partition table: gpt, dos, none or another name; absent where it is not known. Not part of SMC.
    pub partition_table: Option<String>,
    /// Its path on the source. Not part of SMC.
    pub path: String,
    /// Its partitions, where they are known.
    pub parts: Option<SourceTypedParts>,
}

/// A partition of a source's disk, with what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SourceTypedPart {
    /// Always true: it can be copied block by block.
    pub can_block: bool,
    /// Its path on the source.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// System if the root file system lies in it, Boot if the server begins with it, else Normal.
    pub r#type: String,
}

/// Changes name or description of a source. What is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ModifySourceServerAttribute {
    /// The source.
    #[schema(max_length = 128)]
    pub source_id: String,
    /// The new name, unique in the account.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub name: Option<String>,
    /// The new description; empty clears it.
    #[schema(max_length = 256, pattern = "^(?!https?://)")]
    pub description: Option<String>,
}

/// Deletes a source; with Force also its jobs and their intermediate resources, unless one runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteSourceServer {
    /// The source.
    #[schema(max_length = 128)]
    pub source_id: String,
    /// Delete its jobs as well; default false.
    pub force: Option<bool>,
}
