//! The space of a disk that its file systems do not use, so that it need not be read or sent.
//!
//! Nothing of it counts unless one reading explains the whole disk: see [`reading`].
//!
//! Space that a file system calls free is free only at that moment. A block that is given to a file a second later
//! holds data, and a copy that has zeros there is broken without anybody noticing. So this is believed under three
//! conditions, all of which are checked:
//!
//! 1. *Nobody writes.* A block device must be free of mounts, swap, volumes and programs that hold it, which is what
//!    the kernel says when it lets us open it exclusively; that also covers its partitions and other mount namespaces,
//!    of which no list tells. A file must not have been written since before it was looked at: its times say that. See
//!    [`view`].
//! 2. *It is whole.* A file system that was not unmounted has a journal that is still to be replayed, and its maps are
//!    those of an earlier moment: then nothing of it counts. Nor does a map that no checksum covers, unless a check of
//!    the whole file system finds nothing. See the modules of the kinds.
//! 3. *It adds up.* The list that a tool prints must have as many blocks as the superblock says are free. A tool that
//!    prints something else than what we take it for, or stops in the middle, does not pass.
//!
//! And it must be true until the end: [`Frozen::still_holds`] looks again when everything is read, before the sender
//! gives its roots. Where something has changed the attempt ends, and the next one looks anew.
//!
//! Without this certainty nothing is left out. There is no weaker kind of answer: a disk that is in use has to be read
//! in full anyway, and reading its free space last would make nothing faster.

mod btrfs;
mod ext;
mod place;
mod ranges;
mod reading;
mod sandbox;
mod tool;
mod view;
mod xfs;

#[cfg(test)]
mod layers;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use tool::ToolError;
pub(super) use tool::{INPUT, OpenDisk, Tool, Tools};

use chunks::ByteRange;
use view::View;

/// Longest look at all file systems of a disk. The sender looks a second time while the receiver waits, so it is
/// shorter than a stall.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The answer of a disk's file systems about the space that they don't use.
#[derive(Debug)]
pub enum Allocation {
    /// Nobody writes to the disk, and this is free.
    Frozen(Frozen),
    /// Nothing is certain, and why.
    Unknown(Unknown),
}

/// Space that is free for certain. Only [`inspect`] makes one.
#[derive(Debug)]
pub struct Frozen {
    disk: PathBuf,
    size_bytes: u64,
    view: View,
    free: Vec<ByteRange>,
    /// Reasons why the free space of some of its file systems is not known.
    copied: Vec<Unknown>,
}

/// A tool's answer about a file system.
#[derive(Debug, PartialEq, Eq)]
struct FileSystem {
    size_bytes: u64,
    /// In order, from its beginning.
    free: Vec<ByteRange>,
}

/// The reason why the free space of a disk or a file system is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Somebody may write to it.
    #[error(
        "it is in use: a file system on it is mounted, or swap, a volume or a program holds it"
    )]
    InUse,
    /// A file that changes.
    #[error("it is being written")]
    Written,
    /// It can't be looked at.
    #[error("it can't be looked at: {0}")]
    Unreadable(String),
    /// There is nothing that could tell.
    #[error("{0} says nothing of free space that could be relied on")]
    Content(String),
    /// There is more than one way to read it.
    #[error("its bytes can be read in several ways ({0}), and only one of them can be right")]
    Several(String),
    /// Its partition table was read from the backup.
    #[error("the first copy of its partition table is broken: repair it from the backup")]
    Backup,
    /// Its partitions are no partition.
    #[error("its partitions overlap, or reach beyond its end")]
    Overlap,
    /// A file system that is larger than its place, or so much smaller that it may be a remnant.
    #[error("a file system of {file_system} bytes does not fit a place of {place}")]
    Unfit {
        /// Its size by its superblock, in bytes.
        file_system: u64,
        /// The size of the partition or disk, in bytes.
        place: u64,
    },
    /// A check found faults.
    #[error("a check of the {0} file system finds faults: repair it")]
    Damaged(&'static str),
    /// A file system that was not unmounted, or is damaged.
    #[error("the {0} file system was not unmounted cleanly")]
    Unclean(&'static str),
    /// The tool's list is not what the superblock says.
    #[error("the {kind} file system counts {counted} free blocks and lists {listed}")]
    Sum {
        /// The kind of file system.
        kind: &'static str,
        /// By its superblock.
        counted: u64,
        /// By the tool's list.
        listed: u64,
    },
    /// The tool does not say what we need.
    #[error("the tools of {0} say something else than what is known of them")]
    Output(&'static str),
    /// No tool, or none that works.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Asks the file systems of a disk. Blocks, for a minute at most.
pub fn inspect(disk: &Path, size_bytes: u64) -> Allocation {
    match frozen(disk, size_bytes) {
        Ok(frozen) => Allocation::Frozen(frozen),
        Err(unknown) => Allocation::Unknown(unknown),
    }
}

fn frozen(disk: &Path, size_bytes: u64) -> Result<Frozen, Unknown> {
    let tools = Tools::within(TIMEOUT);
    let open = OpenDisk::open(disk).map_err(|error| Unknown::Unreadable(error.to_string()))?;
    let view = View::of(&tools, &open)?;
    let mut free = Vec::new();
    let mut copied = Vec::new();
    for place in reading::places(&tools, &open, size_bytes)? {
        match place.free(&tools) {
            Ok(ranges) => free.extend(ranges),
            Err(unknown) => {
                tracing::debug!(disk = %disk.display(), offset = place.offset_bytes, reason = %unknown, "free space is copied");
                copied.push(unknown);
            }
        }
    }
    free.sort_unstable_by_key(|range: &ByteRange| range.start);
    if free.is_empty()
        && let Some(unknown) = copied.pop()
    {
        return Err(unknown);
    }
    Ok(Frozen {
        disk: disk.to_owned(),
        size_bytes,
        view,
        free,
        copied,
    })
}

impl Frozen {
    /// The ranges that no file system uses, in order and apart from each other, on the disk.
    pub fn free(&self) -> &[ByteRange] {
        &self.free
    }

    /// Returns why free space of this disk is copied in part. That is what a file system with free space says, but not
    /// that there is none, as in a boot partition.
    pub fn copied(&self) -> impl Iterator<Item = &Unknown> {
        let has_file_system = |unknown: &&Unknown| !matches!(unknown, Unknown::Content(_));
        self.copied.iter().filter(has_file_system)
    }

    /// Looks again: whether all of it is free now, and nobody has written. Blocks as [`inspect`] does.
    pub fn still_holds(&self) -> bool {
        match &self.view {
            View::File(stamp) => stamp.is_of(&self.disk),
            // A device may have been mounted and unmounted in between.
            View::Device => match frozen(&self.disk, self.size_bytes) {
                Ok(now) => chunks::without(&self.free, &now.free).is_empty(),
                Err(_) => false,
            },
        }
    }
}
