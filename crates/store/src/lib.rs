//! Postgres: the migrations, and all SQL statements.
//!
//! Postgres holds the truth. Each operation here is one short transaction without network calls. It takes its locks in
//! the order tenant, job, lease, outbox, and returns a typed outcome. Zero rows mean that another process won, which is
//! no error.

mod error;
mod list;
mod page;
mod pool;
mod row;
mod schema;
mod seal;
mod seal_rotation;

pub mod access_token;
pub mod admission;
pub mod agent;
pub mod assignment;
pub mod audit;
pub mod bytes;
pub mod client_token;
pub mod dead_letter;
pub mod deployment_secret;
pub mod fill;
pub mod history;
pub mod image;
pub mod image_build;
pub mod instance;
pub mod job;
pub mod job_counts;
pub mod key;
pub mod lease;
pub mod network;
pub mod nonce;
pub mod operator;
pub mod outbox;
pub mod parking;
pub mod policy;
pub mod run;
pub mod source;
pub mod sweep;
pub mod tag;
pub mod tenant;
pub mod timer;
pub mod user;
pub mod worker;
pub mod workgroup;

pub use error::{ErrorKind, StoreError};
pub use page::{Listed, Page};
pub use pool::{ConnectConfig, Connections, Store, migrate};
/// A JSON value, as columns of type JSON hold it.
pub use serde_json::Value as JsonValue;

pub use seal::{InvalidSealKey, SealKey};
pub use seal_rotation::Resealed;

/// The transaction type that operations of one step share.
pub(crate) type Transaction<'c> = sqlx::Transaction<'c, sqlx::Postgres>;
