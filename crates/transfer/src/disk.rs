//! Disks of an image: writing them, and reading again what was written. Everything here blocks and belongs on threads
//! of its own.

mod reserve;
mod storage;
mod target;
#[cfg(test)]
pub(crate) mod volatile_storage;

pub use reserve::{Reserve, Room, stored_bytes};
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
