//! Migration sources, as the API shows, changes and deletes them. Their agents write them: see [`crate::agent`].

pub(crate) mod delete;
mod list;
mod modify;

pub use delete::DeleteSource;
pub use list::{Source, SourceFilter};
pub use modify::{ModifySource, SourceChange};

use domain::disk::{DiskIdentity, DiskIndex, DiskLayout, SourceDisk, SourcePartition};
use domain::source::OFFLINE_AFTER;
use sqlx::types::Json;

use crate::StoreError;
use crate::row::unsigned;

/// Returns the seconds of silence after which a source is offline.
pub(crate) fn offline_after_secs() -> f64 {
    OFFLINE_AFTER.as_secs_f64()
}

/// The columns of a row of `source_disk` about the disk's contents, identity and use.
pub(crate) struct DiskFacts {
    pub(crate) partitions: Json<Vec<SourcePartition>>,
    pub(crate) layout: Json<DiskLayout>,
    pub(crate) identity: Option<Json<DiskIdentity>>,
    pub(crate) in_use: String,
}

/// Converts a row of `source_disk`.
pub(crate) fn disk(
    index: i16,
    path: String,
    size_bytes: i64,
    used_bytes: Option<i64>,
    facts: DiskFacts,
) -> Result<SourceDisk, StoreError> {
    Ok(SourceDisk {
        index: disk_index("source_disk.index", index)?,
        path,
        size_bytes: unsigned("source_disk.size_bytes", size_bytes)?,
        used_bytes: used_bytes
            .map(|bytes| unsigned("source_disk.used_bytes", bytes))
            .transpose()?,
        partitions: facts.partitions.0,
        layout: facts.layout.0,
        identity: facts.identity.map(|Json(identity)| identity),
        in_use: facts.in_use,
    })
}

/// Converts a column that holds a disk's index.
pub(crate) fn disk_index(column: &'static str, index: i16) -> Result<DiskIndex, StoreError> {
    u16::try_from(index)
        .map(DiskIndex)
        .map_err(|_| StoreError::UnknownValue {
            column,
            value: index.to_string(),
        })
}
