//! The data path: from the disks of a source to the disks of an image.
//!
//! `docs/data-path.md` explains the design. In short: a disk is cut into chunks. The sender reads and hashes each
//! chunk, and sends what the receiver does not have. The receiver checks, writes and flushes it, and only then reports
//! it as durable.
//!
//! - [`protocol`] and [`plan`] encode and decide. They do no I/O and know no sockets.
//! - [`unchanged`] tells which chunks of a source need not be read again. [`manifest`] is a disk's hashes as a file.
//! - [`disk`] writes the disks of an image, and [`chunk_map`] is the receiver's durable memory of them. Its page has
//!   the argument why a chunk that was reported survives a crash. [`fence`] has the argument why no byte of a former
//!   owner of the run lands.
//! - [`sender`] and [`receiver`] are the engine. It is written against the traits of [`transport`] and [`source`], so
//!   it has no sockets and opens no disk of a source itself.
//! - `simulation`, in tests, is a driver of that engine: it brings a network in virtual time, disks that fail and
//!   storage that is volatile. It is in this crate because sender and receiver are proved together.
//!
//! The crate may use `chunks`, `source`, `transport`, `domain`, and the places for connections of `service`. It knows
//! neither Postgres nor NATS nor gRPC.

mod control;
mod cpu_pool;
#[cfg(test)]
mod simulation;

pub mod chunk_map;
pub mod disk;
pub mod error;
pub mod fence;
pub mod limits;
pub mod manifest;
pub mod plan;
pub mod protocol;
pub mod receiver;
pub mod sender;
pub mod ticket;
pub mod unchanged;

pub use error::TransferError;
pub use ticket::{Ticket, TicketSecret};
