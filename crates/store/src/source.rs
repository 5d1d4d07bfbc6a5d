//! Migration sources, as the API shows, changes and deletes them. Their agents write them: see [`crate::agent`].

pub(crate) mod delete;
mod list;
mod modify;

pub use delete::DeleteSource;
pub use list::{Source, SourceFilter};
pub use modify::{ModifySource, SourceChange};

use domain::disk::{DiskIndex, SourceDisk, SourcePartition};
use domain::source::OFFLINE_AFTER;

use crate::StoreError;
use crate::row::unsigned;

/// Seconds of silence after which a source is offline.
pub(crate) fn offline_after_secs() -> f64 {
    OFFLINE_AFTER.as_secs_f64()
}

/// A row of `source_disk`.
pub(crate) fn disk(
    index: i16,
    path: String,
    size_bytes: i64,
    used_bytes: Option<i64>,
    partitions: Vec<SourcePartition>,
    in_use: String,
) -> Result<SourceDisk, StoreError> {
    Ok(SourceDisk {
        index: disk_index("source_disk.index", index)?,
        path,
        size_bytes: unsigned("source_disk.size_bytes", size_bytes)?,
        used_bytes: used_bytes
            .map(|bytes| unsigned("source_disk.used_bytes", bytes))
            .transpose()?,
        partitions,
        in_use,
    })
}

/// A column that holds a disk's index.
pub(crate) fn disk_index(column: &'static str, index: i16) -> Result<DiskIndex, StoreError> {
    u16::try_from(index)
        .map(DiskIndex)
        .map_err(|_| StoreError::UnknownValue {
            column,
            value: index.to_string(),
        })
}
