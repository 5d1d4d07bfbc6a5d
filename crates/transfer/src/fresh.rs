//! Which chunks need not be read again: those that were read from the source as it still is.
//!
//! A source that can prove that nothing was written has a [`Version`]: while it is the same, so is every byte. The sender names it before it
//! reads anything. What arrives from then on, or is found to be what is there, was read from that version. So when the sender comes back, after whatever
//! fall, and names the same version, none of these chunks has changed. Another version, or none, and nothing is known any more.

use chunks::Version;
use chunks::chunk_set::ChunkSet;

use crate::chunk_map::Written;

/// The chunks that were read from one version of the source.
#[derive(Debug)]
pub struct Fresh {
    version: Option<Version>,
    chunks: ChunkSet,
}

impl Fresh {
    /// Of a disk of so many chunks, none.
    pub fn new(chunks: u64) -> Self {
        Self {
            version: None,
            chunks: ChunkSet::new(chunks),
        }
    }

    /// The version that they were read from.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The chunks, as first and number, in order.
    pub fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        self.chunks.stretches()
    }

    /// Enters what a journal of the target says.
    pub(crate) fn apply(&mut self, entry: &Written) {
        match *entry {
            Written::Version(version) => {
                self.version = version;
                self.chunks.clear();
            }
            Written::Forgotten { start, count } => self.chunks.remove(start, count),
            // Nobody asks for chunks of no version.
            _ if self.version.is_none() => {}
            Written::Zeros { start, count } | Written::Same { start, count } => {
                self.chunks.insert(start, count);
            }
            Written::Data { chunk, .. } => {
                self.chunks.insert(chunk, 1);
            }
            Written::Bad(_) => {}
        }
    }
}
