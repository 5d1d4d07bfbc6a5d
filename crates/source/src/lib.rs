//! Reading the disks of a server that is somebody else's, as root, and without leaving a trace on it.
//!
//! Nothing here knows a job, a receiver or an identity. A caller names a disk and gets its bytes, and what the kernel
//! and the tools that own the formats report about it.
//!
//! - [`Source`] is a disk as the operating system has it, read past the page cache. [`SourceReader`] reads one that may
//!   be failing.
//! - [`Observed`] says whether a disk is being written, and has its fingerprint. The argument is in `fingerprint`.
//! - [`Extents`] is where a file has data. [`allocation`] is what the file systems of a disk call free, with the
//!   argument why that can be believed.
//! - [`partitions`] is a disk's partition table.
//!
//! The crate may use `chunks` and `domain`. Everything in it blocks and belongs on threads of its own. Programs that
//! parse a foreign disk run in a sandbox, which `allocation` describes.

pub mod allocation;
mod disk;
mod error;
mod extents;
#[cfg(any(test, feature = "faulty"))]
pub mod faulty;
mod fingerprint;
mod observed;
pub mod partitions;
mod reader;
mod stamp;
#[cfg(test)]
mod testing;

pub use allocation::Allocation;
pub use disk::{FileSource, Files, Source, Sources};
pub use error::SourceError;
pub use extents::Extents;
pub use observed::Observed;
pub use reader::SourceReader;
