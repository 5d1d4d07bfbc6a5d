//! What ends a receiver's process.

use std::path::PathBuf;

/// Why a receiver can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is no instance's.
    #[error("{} is no instance: it holds no readable file `instance`", path.display())]
    NoInstance {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The instance file can't be understood.
    #[error("the file `instance` in {} can't be understood: {what}", path.display())]
    Malformed {
        /// Which directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another receiver works in the directory.
    #[error("another receiver works in {}", path.display())]
    Locked {
        /// Which directory.
        path: PathBuf,
    },
    /// The fence stands higher.
    #[error("epoch {epoch} is over: the instance in {} has seen epoch {fence}", path.display())]
    Fenced {
        /// Which directory.
        path: PathBuf,
        /// The epoch of the instance file.
        epoch: domain::Epoch,
        /// The epoch of the fence.
        fence: domain::Epoch,
    },
    /// The data listener can't be opened.
    #[error(transparent)]
    Transfer(#[from] transfer::TransferError),
    /// The address of /healthz, /readyz and /metrics.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// The control listener can't be opened.
    #[error("can't serve the worker")]
    Control(#[source] tonic::transport::Error),
    /// A file or socket.
    #[error("can't {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A background task.
    #[error(transparent)]
    Task(#[from] service::TaskFailure),
}
