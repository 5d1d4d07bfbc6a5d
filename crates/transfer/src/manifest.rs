//! The manifest of a disk: what an image's disk must hold, in a file that can be checked with nothing else at hand.
//!
//! # Format
//!
//! | bytes | |
//! |---|---|
//! | 8 | `WHMANIF2` |
//! | 8 | size of the source's disk in bytes |
//! | 4 | bytes of a chunk |
//! | then, for each 4096 chunks in order, the last time perhaps for fewer | a *page* |
//! | 4 | how many ranges the source could not read, at most 16,384 |
//! | 16 for each | its first byte, and its length in bytes; in order, and none touches the next |
//! | 32 | the root |
//! | 32 | BLAKE3 of everything before |
//!
//! A page is a byte for its kind and what follows from that: 0, all its chunks are zeros, nothing; 1, all are data, the
//! hash of each; 2, some are data, a bit for each chunk (the first is bit 0 of the first byte; set for data; what is
//! left of the last byte is 0) and the hashes of those. All integers are little-endian. There is one way to write what
//! a disk holds and no other is read, so no bit of the file is without meaning.
//!
//! The root is BLAKE3 over size (u64), chunk size (u32) and the hash of every chunk in order, that of a chunk of zeros
//! too, then first byte and length of every range that the source could not read. Such bytes are zeros. The disk may be
//! longer than the size: what lies behind is zeros.
//!
//! A writer or reader holds one page at a time, whatever the size of the disk.

mod check;
mod file;

pub use check::{Content, verify, verify_content};
pub use file::{Head, most_bytes, read, write};

/// A fault of a manifest, or of a disk under it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file can't be read.
    #[error("can't read {path}")]
    Read {
        /// Path of the file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no manifest of this version.
    #[error("the manifest {path} can't be used: {what}")]
    Malformed {
        /// The manifest.
        path: String,
        /// The fault.
        what: String,
    },
    /// The manifest was changed since it was written.
    #[error(
        "the manifest {path} is damaged: {what}. Fetch it again, or take another copy of the image"
    )]
    Damaged {
        /// The manifest.
        path: String,
        /// The sign of it.
        what: String,
    },
    /// A chunk of the disk is not what the manifest says.
    #[error(
        "the disk {path} differs from its manifest in the {length} bytes from byte {offset} on"
    )]
    Differs {
        /// The disk.
        path: String,
        /// First byte of the first chunk that differs.
        offset: u64,
        /// Bytes of that chunk.
        length: u32,
    },
    /// The disk is shorter than the manifest says.
    #[error("the disk {path} has {found} bytes, its manifest asks for {expected}")]
    Short {
        /// The disk.
        path: String,
        /// Bytes that it has.
        found: u64,
        /// Bytes of the manifest.
        expected: u64,
    },
    /// There is data behind the source's bytes.
    #[error(
        "the disk {path} holds data at or behind byte {offset}, behind the end of the source's disk"
    )]
    DataBehindEnd {
        /// The disk.
        path: String,
        /// Start of the range with data.
        offset: u64,
    },
}
