//! Errors that end a scheduler's process, or a round of one of its tasks.

/// Reason why a scheduler can't start or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// NATS failed.
    #[error(transparent)]
    Bus(#[from] bus::BusError),
    /// The health address can't be used.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// A background task failed.
    #[error(transparent)]
    Task(#[from] service::TaskFailure),
}
