//! What ends a scheduler's process, or a round of one of its tasks.

/// Why a scheduler can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// NATS.
    #[error(transparent)]
    Bus(#[from] bus::BusError),
    /// The health address.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// A background task.
    #[error(transparent)]
    Task(#[from] service::TaskFailure),
}
