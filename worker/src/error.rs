//! Errors that end a worker's process.

use std::path::PathBuf;

/// Reasons for which a worker can't start or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// NATS failed.
    #[error(transparent)]
    Bus(#[from] bus::BusError),
    /// The health address can't be bound.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// A background task failed.
    #[error(transparent)]
    Task(#[from] service::TaskFailure),
    /// A directory can't be created.
    #[error("can't make the directory {}: give another with {flag}, or let this user write there", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The flag that sets it.
        flag: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The times of a lease contradict each other.
    #[error(
        "a lease of {ttl} s can't be renewed every {renewal} s with a margin of {margin} s: renewal and margin together must be shorter \
         than the lease (--lease-ttl-secs, --lease-renewal-secs, --lease-margin-secs)"
    )]
    LeaseTimes {
        /// Seconds that a lease lives.
        ttl: u64,
        /// Seconds between renewals.
        renewal: u64,
        /// Seconds of margin.
        margin: u64,
    },
    /// The program itself can't be found.
    #[error(
        "can't find this program's own file, to start receivers with: name it with --receiver-program"
    )]
    OwnProgram(#[source] std::io::Error),
}
