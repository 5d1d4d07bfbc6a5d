//! Finds, starts and supervises a private Postgres and a private NATS, for `wherry up` and for tests.
//!
//! - The servers listen on loopback only, at free ports, and require a password that lies in their directory with mode
//!   0600.
//! - They die with this process, also when it is killed: see [`child`].
//! - One that crashes is started again at the same port.
//! - One directory contains everything: a second start finds the data as it was. Two processes cannot use it at once.

mod child;
mod directory;
mod error;
mod find;
mod identity;
mod nats;
mod port;
mod postgres;

pub use error::ServerError;
pub use nats::Nats;
pub use postgres::{Durability, Postgres};
