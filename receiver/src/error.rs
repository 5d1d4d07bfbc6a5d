//! Errors that end a receiver's process.

use std::path::PathBuf;

/// Reasons for which a receiver can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory does not belong to an instance.
    #[error("{} is no instance: it holds no readable file `instance`", path.display())]
    NoInstance {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The instance file can't be parsed.
    #[error("the file `instance` in {} can't be understood: {what}", path.display())]
    Malformed {
        /// The directory.
        path: PathBuf,
        /// The mistake in the file.
        what: String,
    },
    /// Another receiver works in the directory.
    #[error("another receiver works in {}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The fence is higher than the instance's epoch.
    #[error("epoch {epoch} is over: the instance in {} has seen epoch {fence}", path.display())]
    Fenced {
        /// The directory.
        path: PathBuf,
        /// The epoch of the instance file.
        epoch: domain::Epoch,
        /// The epoch of the fence.
        fence: domain::Epoch,
    },
    /// The data listener can't be opened.
    #[error(transparent)]
    Transfer(#[from] transfer::TransferError),
    /// The address of /healthz, /readyz and /metrics can't be bound.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// The control listener can't be opened.
    #[error("can't serve the worker")]
    Control(#[source] tonic::transport::Error),
    /// A file or socket operation failed.
    #[error("can't {doing}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A background task failed.
    #[error(transparent)]
    Task(#[from] service::TaskFailure),
}
