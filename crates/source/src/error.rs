//! Faults of a disk of the source, in the sentences that the tenant reads.

use std::io;
use std::path::PathBuf;

use chunks::unreadable::MOST_UNREADABLE_RANGES;
use domain::FailureCode;

/// A disk of the source can't be read as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A disk can't be opened.
    #[error("can't open the disk {}: {source}. Does it exist, and does the agent run as root?", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A disk can't be read, after several tries.
    #[error("the disk {} can't be read, {length} bytes at byte {offset}: {source}. Nothing was delivered. Check the disk, or let the job copy as zeros what can't be read (bad_sectors: zero)", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The first byte that can't be read.
        offset: u64,
        /// Bytes that can't be read from there on, in whole sectors.
        length: u64,
        /// The cause.
        source: io::Error,
    },
    /// A disk has lost more than anybody would call bad sectors.
    #[error(
        "the disk {} can't be read in more than {MOST_UNREADABLE_RANGES} ranges: it fails as a whole. Nothing was delivered. Save what there is onto another disk, with ddrescue for one, and migrate that", path.display()
    )]
    TooManyUnreadableRanges {
        /// Its path.
        path: PathBuf,
    },
    /// A disk is not as large as it was.
    #[error(
        "the disk {} has {found} bytes but had {expected} when the job was created. Create a new job for its new size", path.display()
    )]
    Resized {
        /// Its path.
        path: PathBuf,
        /// The size that the job was made for, in bytes.
        expected: u64,
        /// Its size now, in bytes.
        found: u64,
    },
}

impl SourceError {
    /// The stable code.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Open { .. } | Self::Read { .. } | Self::TooManyUnreadableRanges { .. } => {
                FailureCode::SourceDiskUnreadable
            }
            Self::Resized { .. } => FailureCode::SourceDiskChanged,
        }
    }
}
