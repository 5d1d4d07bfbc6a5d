//! A receiver for the simulation: its connections come from a simulated network, its disks lie on media that forget.

use std::path::Path;

use chunks::hashes::ChunkHashes;

use super::disk::Disk;
use super::{Files, Server, ServerConfig, TargetDisk};
use crate::TransferError;
use crate::carrier::Listener;
use crate::chunk_map::ChunkMap;
use crate::disk::TargetWriter;
use crate::disk::forgetful::Medium;
use crate::simulation::network;

/// Disk and chunk map of each disk, by index. They outlive their receivers.
#[derive(Debug, Clone)]
pub(crate) struct Media(pub(crate) Vec<(Medium, Medium)>);

impl Files for Media {
    fn open(&self, spec: TargetDisk, chunk_bytes: u32) -> Result<Disk, TransferError> {
        let (disk, map) = &self.0[usize::from(spec.index.0)];
        let (storage, path) = (disk.open(), Path::new("disk"));
        storage
            .set_length(spec.target_bytes)
            .map_err(|error| TransferError::target("open", path, error))?;
        let writer = TargetWriter::on(path, storage);
        let nothing = ChunkHashes::new(spec.source_bytes, chunk_bytes);
        let opened = ChunkMap::on(Path::new("map"), map.open(), nothing)?;
        Disk::new(spec, chunk_bytes, writer, opened)
    }
}

impl Server {
    /// Starts a receiver of the simulation.
    pub(crate) fn simulated(
        config: ServerConfig,
        listener: network::Listener,
        media: Media,
    ) -> Result<Self, TransferError> {
        Self::start(config, Listener::Simulated(listener), Box::new(media))
    }
}
