//! The disks of a simulated receiver, on volatile media.

use std::path::Path;

use chunks::hashes::ChunkHashes;

use crate::TransferError;
use crate::chunk_map::ChunkMap;
use crate::disk::TargetWriter;
use crate::disk::volatile_storage::Medium;
use crate::receiver::disk::JournaledDisk;
use crate::receiver::{Files, TargetDisk};

/// Disk and chunk map of each disk, by index. They outlive their receivers.
#[derive(Debug, Clone)]
pub(crate) struct Media(pub(crate) Vec<(Medium, Medium)>);

impl Files for Media {
    fn open(&self, spec: TargetDisk, chunk_bytes: u32) -> Result<JournaledDisk, TransferError> {
        let (disk, map) = &self.0[usize::from(spec.index.0)];
        let (storage, path) = (disk.open(), Path::new("disk"));
        storage
            .set_length(spec.target_bytes)
            .map_err(|error| TransferError::target("open", path, error))?;
        let writer = TargetWriter::on(path, storage);
        let nothing = ChunkHashes::new(spec.source_bytes, chunk_bytes);
        let opened = ChunkMap::on(Path::new("map"), map.open(), nothing)?;
        JournaledDisk::new(spec, chunk_bytes, writer, opened)
    }
}
