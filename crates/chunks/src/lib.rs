//! Chunks: what either side of a transfer knows of a disk's bytes.
//!
//! A disk is cut into chunks of one size, [`CHUNK_BYTES`] unless both sides agree on another. A chunk is unknown,
//! zeros, or data with a hash; all chunks together have a root. This crate holds what sender, receiver, chunk map and
//! manifest share about that, and nothing that knows a disk, a socket or a job:
//!
//! - [`ChunkIndex`] is the number of a chunk, [`ChunkRange`] chunks in a row, [`ByteRange`] bytes in a row. No range is
//!   a pair of numbers.
//! - [`chunk_set`] is a set of chunks, [`unreadable`] the ranges of bytes that a source can't read.
//! - [`hashes`] is what is known of every chunk of a disk, in bounded memory.
//! - [`packing`] makes chunks smaller on the way.
//! - [`ContentFingerprint`] tells one content of a source from another.
//! - [`buffer`] is memory that chunks are read into.
//!
//! The crate may use `domain`. It does no I/O with one exception: hashes that do not fit memory go to an unnamed file.
//!
//! The reason for bits instead of a crate for ranges is in `docs/decisions/0020-sets-of-chunks.md`.

pub mod buffer;
pub mod chunk_set;
mod fingerprint;
pub mod hashes;
pub mod packing;
mod range;
pub mod unreadable;

pub use fingerprint::ContentFingerprint;
pub use range::{ByteRange, ChunkIndex, ChunkRange, without};

/// Bytes of a chunk: the unit of hashing, transfer and resume. The protocol and the files carry the size.
pub const CHUNK_BYTES: u32 = 1 << 20;

/// Chunks that a sender works with: whole blocks of O_DIRECT, and few enough bytes to hold many.
pub const CHUNK_BYTES_ALLOWED: std::ops::RangeInclusive<u32> = 4096..=16 << 20;
