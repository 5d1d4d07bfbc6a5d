//! The data path: from the disks of a source to the disks of an image.
//!
//! `docs/data-path.md` explains the design. In short: a disk is cut into chunks; the sender reads and hashes each and sends what the
//! receiver does not have; the receiver checks, writes, flushes, and only then says that a chunk is there.
//!
//! - [`protocol`] and [`plan`] decide and encode. They do no I/O and know no sockets.
//! - [`unchanged`] tells which chunks of a source need not be read again; [`manifest`] is what is known of a disk as a file.
//! - [`disk`] reads sources and writes targets, [`chunk_map`] is the receiver's durable memory.
//! - [`sender`] and [`receiver`] are the engine: they put both together over a [`transport`] and have no sockets. Tests run them in virtual time.

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
