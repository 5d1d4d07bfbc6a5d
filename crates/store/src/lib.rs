//! Postgres: the migrations, and every SQL statement there is.
//!
//! Postgres is the truth. Each operation here is one short transaction that holds no network call, takes its locks in the order
//! tenant, job, lease, outbox, and answers with a typed outcome: zero rows means that somebody else won, which is no error.

mod error;
mod pool;
mod row;
mod seal;

pub mod agent;
pub mod deployment_secret;
pub mod job;
pub mod outbox;

pub use error::{ErrorKind, StoreError};
pub use pool::{ConnectConfig, Store, migrate};
pub use seal::{InvalidSealKey, SealKey};

/// The transaction type that operations of one step share.
pub(crate) type Transaction<'c> = sqlx::Transaction<'c, sqlx::Postgres>;
