//! Faults of a transfer, each with its code and the sentence that the tenant reads.

use std::io;
use std::path::{Path, PathBuf};

use domain::disk::DiskIndex;
use domain::{Epoch, Failure, FailureCode};
use serde::{Deserialize, Serialize};
use source::SourceError;
use transport::TransportError;

use crate::disk::Room;

/// A transfer ended without receipts.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A disk of the source can't be read as it should be.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A disk was used while its free space was left out.
    #[error(
        "the file systems of {} changed while they were copied: the copy begins anew, and keeps what is still right. To copy a disk that is in use at its \
         full length, create the job with free_space \"copy\"", path.display()
    )]
    AllocationChanged {
        /// Its path.
        path: PathBuf,
    },
    /// A disk was written while it was copied, and the image was to be one moment in time.
    #[error(
        "the disk {} was written while it was copied: the copy is not one moment in time. Stop what writes to the disk, or give the agent a snapshot of it \
         (--disk with an LVM snapshot), then start the job again; what was copied is kept. To have an image that is not one moment in time, create the job \
         with consistency \"fuzzy\"", path.display()
    )]
    Written {
        /// Its path.
        path: PathBuf,
    },
    /// The hashes of a large disk do not fit memory, and can't be kept on the sender's disk.
    #[error(
        "can't use {0}. Free some space there, then start the job again; what was copied is kept"
    )]
    Scratch(#[source] io::Error),
    /// The target has no room.
    #[error(
        "no space left at {}: free some, then start the job again; what was copied is kept",
        named(path)
    )]
    TargetFull {
        /// The file that was written. Tenants read its name, and not where the operator keeps it.
        path: PathBuf,
    },
    /// The target's file system has room, but only what is to stay free.
    #[error(
        "the store of copies has {} bytes free, and {} must stay free: free some or add space, then start the job again; what was copied is kept", room.free_bytes, room.reserved_bytes
    )]
    TargetReserve {
        /// The room that there is.
        room: Room,
    },
    /// The target refuses a write, a flush or a read.
    #[error("can't {doing} {}: {source}", named(path))]
    Target {
        /// The action that failed.
        doing: &'static str,
        /// To which file. Tenants read its name, and not where the operator keeps it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Bytes are not what they were.
    #[error("disk {disk}: {what}. The run was stopped and nothing was delivered")]
    Corrupt {
        /// The disk.
        disk: DiskIndex,
        /// The place, and how it was seen.
        what: String,
    },
    /// The other side does not keep to the protocol.
    #[error("the other side broke the transfer protocol: {0}")]
    Protocol(String),
    /// The other side speaks another version.
    #[error(
        "the other side speaks version {theirs} of the transfer protocol, this one version {ours}: upgrade the older of the two"
    )]
    Version {
        /// This side's version.
        ours: u16,
        /// The other side's.
        theirs: u16,
    },
    /// The ticket is not one of this run's, or has expired.
    #[error("the receiver refused the ticket: {0}")]
    Ticket(String),
    /// A newer owner of the run has raised the fence.
    #[error("epoch {epoch} is over: the run has a newer owner")]
    Fenced {
        /// The epoch that is over.
        epoch: Epoch,
    },
    /// A newer connection of the same sender took over.
    #[error("a newer connection of the same sender took over")]
    Replaced,
    /// The connection could not be made, or broke.
    #[error("the connection to the receiver at {address} failed: {message}")]
    Connection {
        /// Address of the receiver, or of the agent for a receiver.
        address: String,
        /// The cause.
        message: String,
    },
    /// The reason that the other side gave for ending the transfer.
    #[error("{}", .0.message)]
    Remote(RemoteFailure),
    /// Asked to stop.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The TLS material can't be used.
    #[error("the certificates of the run can't be used: {0}")]
    Identity(String),
}

impl From<TransportError> for TransferError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable { address, source } => Self::Connection {
                address: address.to_string(),
                message: source.to_string(),
            },
            TransportError::Identity(why) => Self::Identity(why),
        }
    }
}

/// The name of a file, without its directories.
fn named(path: &Path) -> impl std::fmt::Display {
    path.file_name().unwrap_or_default().display()
}

/// An error as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFailure {
    /// The failure's code.
    pub code: FailureCode,
    /// The fault, and what to do.
    pub message: String,
    /// True if the same transfer may succeed when it is tried again.
    pub retryable: bool,
}

impl TransferError {
    /// A failed write, flush or read of a target file.
    pub(crate) fn target(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::TargetFull {
                path: path.to_owned(),
            },
            _ => Self::Target {
                doing,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// The stable code.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Source(error) => error.code(),
            Self::AllocationChanged { .. } | Self::Written { .. } => FailureCode::SourceDiskChanged,
            Self::TargetFull { .. } | Self::TargetReserve { .. } => FailureCode::TargetFull,
            Self::Target { .. } => FailureCode::TargetUnwritable,
            Self::Corrupt { .. } => FailureCode::Corrupt,
            Self::Version { .. } => FailureCode::VersionMismatch,
            Self::Connection { .. }
            | Self::Ticket(_)
            | Self::Fenced { .. }
            | Self::Replaced
            | Self::Cancelled => FailureCode::ReceiverUnreachable,
            Self::Protocol(_) | Self::Identity(_) | Self::Scratch(_) => FailureCode::Internal,
            Self::Remote(failure) => failure.code,
        }
    }

    /// Returns true if the same transfer may succeed when it is tried again, with a new assignment if need be.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { .. }
            | Self::AllocationChanged { .. }
            | Self::Written { .. }
            | Self::Ticket(_)
            | Self::Fenced { .. }
            | Self::Replaced
            | Self::Cancelled => true,
            Self::Remote(failure) => failure.retryable,
            Self::Source(_)
            | Self::Scratch(_)
            | Self::TargetFull { .. }
            | Self::TargetReserve { .. }
            | Self::Target { .. }
            | Self::Corrupt { .. }
            | Self::Protocol(_)
            | Self::Version { .. }
            | Self::Identity(_) => false,
        }
    }

    /// The failure. The tenant reads the name of a target's file, and the operator in the cause where it is.
    pub fn failure(&self) -> Failure {
        let failure = Failure::new(self.code(), self.to_string());
        match self {
            Self::TargetFull { path } | Self::Target { path, .. } => {
                failure.with_cause(format!("{}: {self}", path.display()))
            }
            _ => failure,
        }
    }

    pub(crate) fn to_remote(&self) -> RemoteFailure {
        RemoteFailure {
            code: self.code(),
            message: self.to_string(),
            retryable: self.is_retryable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenant_reads_of_a_target_has_no_path_of_the_operator() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied] {
            let path = Path::new("/srv/wherry/instances/i-1/disk-0.raw");
            let error = TransferError::target("write", path, kind.into());
            let cause = error.failure().cause;
            assert!(
                cause.contains("/srv/wherry"),
                "the operator reads it: {cause}"
            );
            for message in [error.failure().message, error.to_remote().message] {
                assert!(!message.contains('/'), "{message}");
                assert!(message.contains("disk-0.raw"), "{message}");
            }
        }
    }
}
