//! The data path: from the disks of a source to the disks of an image.
//!
//! `docs/data-path.md` explains the design. In short: a disk is cut into chunks; the sender reads and hashes each and sends what the
//! receiver does not have; the receiver checks, writes, flushes, and only then says that a chunk is there.
//!
//! - [`protocol`] and [`plan`] decide and encode. They do no I/O and know no sockets.
//! - [`packing`] makes chunks smaller on the way; [`fresh`] tells which of a source need not be read again.
//! - [`hashes`] is what either side knows of a disk, with bounded memory; [`manifest`] is the same as a file.
//! - [`disk`] reads sources and writes targets, [`chunk_map`] is the receiver's durable memory.
//! - [`sender`] and [`receiver`] are the engine: they put both together over a [`carrier`] and have no sockets. Tests run them in virtual time.
//! - [`carrier`] has the sockets: QUIC, or TLS over TCP.

mod chunk_set;
mod control;
mod identity;
mod quic;
#[cfg(test)]
mod simulation;
mod tcp;
mod work;

pub mod bad;
pub mod bench;
pub mod carrier;
pub mod chunk_map;
pub mod disk;
pub mod error;
pub mod fence;
pub mod fresh;
pub mod hashes;
pub mod limits;
pub mod manifest;
pub mod packing;
pub mod plan;
pub mod protocol;
pub mod receiver;
pub mod sender;
pub mod ticket;

pub use carrier::Carrier;
pub use error::TransferError;
pub use fresh::Version;
pub use hashes::{ChunkHashes, Hash};
pub use identity::{Identity, is_named};
pub use ticket::{Ticket, TicketSecret};

/// Bytes of a chunk: the unit of hashing, transfer and resume. The protocol and the files carry the size.
pub const CHUNK_BYTES: u32 = 1 << 20;
