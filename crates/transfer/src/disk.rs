//! Disks: reading a source, writing a target. Everything here blocks and belongs on threads of its own.

pub mod allocation;
mod extents;
pub mod faulty;
#[cfg(test)]
pub(crate) mod forgetful;
mod observed;
pub mod partitions;
mod reader;
mod source;
mod stamp;
mod storage;
mod target;
#[cfg(test)]
mod testing;
mod version;

pub use allocation::Allocation;
pub use extents::Extents;
pub use observed::Observed;
pub use reader::SourceReader;
pub use source::{FileSource, Files, Source, Sources};
pub(crate) use storage::next_data;
pub use storage::{FileStorage, Storage};
pub use target::{Found, TargetWriter};

/// Makes the names in a file's directory durable.
pub(crate) fn sync_parent(path: &std::path::Path) -> std::io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(std::path::Path::new(".")))?.sync_all()
}
