//! Disks in the terms of the API: an index and a size in GiB. Index 0 is the system disk.

use std::fmt;

mod identity;

pub use identity::{Difference, DiskChange, DiskIdentity, DiskRecord, Fact, find_again};

use serde::{Deserialize, Serialize};

/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// The most bytes that a file with a disk of this size has, in whatever form: qcow2 adds tables to the data, and a 64th
/// is far more than they need.
pub const fn most_file_bytes(size_bytes: u64) -> u64 {
    size_bytes
        .saturating_add(size_bytes / 64)
        .saturating_add(64 << 20)
}

/// Index of a server's disk: 0 is the system disk, 1–16 are data disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskIndex(pub u16);

impl DiskIndex {
    /// The system disk.
    pub const SYSTEM: Self = Self(0);
    /// The largest index of a data disk.
    pub const MAX: Self = Self(16);
}

impl fmt::Display for DiskIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A disk of a source, as its agent found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDisk {
    /// The disk's index.
    pub index: DiskIndex,
    /// Path of the disk on the source, such as `/dev/vda`.
    pub path: String,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Bytes that the disk's file systems or extents use, if the agent could determine them.
    pub used_bytes: Option<u64>,
    /// The disk's partitions, in the order of their table. Empty if the disk has no table, or if the agent could not
    /// read it.
    pub partitions: Vec<SourcePartition>,
    /// Sectors and partition table of the disk.
    pub layout: DiskLayout,
    /// Identity of the disk, whatever its name. `None` if the agent is of a version that does not report it.
    pub identity: Option<DiskIdentity>,
    /// Use of the disk for writing, such as `mounted at /`. Empty if the agent knows of none.
    pub in_use: String,
}

/// Sectors and partition table of a disk, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskLayout {
    /// Bytes of a sector, as programs address them. A file has no sectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_sector_bytes: Option<u32>,
    /// Bytes of a sector, as the disk writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_sector_bytes: Option<u32>,
    /// Kind of the disk's partition table: `gpt`, `dos`, `none`, or another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_table: Option<String>,
}

/// A partition of a source's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePartition {
    /// Path of the partition on the source, such as `/dev/vda1`.
    pub path: String,
    /// Offset of the partition's first byte on the disk.
    pub start_bytes: u64,
    /// Size of the partition in bytes.
    pub size_bytes: u64,
    /// Purpose of the partition.
    pub purpose: PartitionPurpose,
}

/// Purpose of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionPurpose {
    /// Anything else.
    #[default]
    Normal,
    /// The partition holds the root file system of the running server.
    System,
    /// The server boots from the partition.
    Boot,
}

impl PartitionPurpose {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::System => "System",
            Self::Boot => "Boot",
        }
    }
}

/// A disk of the image that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetDisk {
    /// The disk's index.
    pub index: DiskIndex,
    /// Size of the disk in GiB.
    pub size_gib: u32,
}

impl TargetDisk {
    /// Returns the size in bytes.
    pub fn size_bytes(self) -> u64 {
        u64::from(self.size_gib) * GIB
    }
}

/// Returns the whole GiB that hold `bytes`, rounded up. The API shows the size of a disk in this form.
pub fn gib_rounded_up(bytes: u64) -> u64 {
    bytes.div_ceil(GIB)
}

/// Consistency of a disk's copy: true to one moment, or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// Nothing was written between the first read and the last.
    #[serde(rename = "one moment in time")]
    One,
    /// The disk was written meanwhile: one part of the copy is older than another.
    #[serde(rename = "not one moment in time")]
    Several,
    /// The source can't determine the consistency.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
}

impl Moment {
    /// Returns the words of image descriptions and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one moment in time",
            Self::Several => "not one moment in time",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the moment of an image whose disks have these.
    pub fn of_all(moments: impl IntoIterator<Item = Self>) -> Self {
        let worse = |one, other| match (one, other) {
            (Self::Several, _) | (_, Self::Several) => Self::Several,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::One, Self::One) => Self::One,
        };
        moments.into_iter().reduce(worse).unwrap_or_default()
    }
}

/// A disk that its source uses for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInUse {
    /// Path of the disk on the source.
    pub path: String,
    /// Use of the disk, such as `mounted at /`.
    pub by: String,
}

impl DiskInUse {
    /// Returns the warning for a person who wants an image of the disk that is one moment in time.
    pub fn warning(&self) -> String {
        format!(
            "The disk {} is used for writing ({}). If it is written while it is copied, the run ends with SourceServer.DiskChanged: stop what writes to it, \
             or give the agent a snapshot of it, or ask for consistency \"fuzzy\".",
            self.path, self.by
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Moment::{One, Several, Unknown};
    use super::*;

    #[test]
    fn an_image_is_of_one_moment_if_each_of_its_disks_is() {
        for (disks, image) in [
            (vec![], Unknown),
            (vec![One], One),
            (vec![One, One], One),
            (vec![One, Unknown], Unknown),
            (vec![Unknown, Several, One], Several),
        ] {
            assert_eq!(Moment::of_all(disks.clone()), image, "{disks:?}");
        }
    }
}
