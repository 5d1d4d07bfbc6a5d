//! Which chunks need not be read again: those that were read from the source as it still is.
//!
//! A source that can prove that nothing was written has a [`Version`]: while it is the same, so is every byte. The sender names it before it
//! reads anything. What arrives from then on, or is found to be what is there, was read from that version. So when the sender comes back, after whatever
//! fall, and names the same version, none of these chunks has changed. Another version, or none, and nothing is known any more.

use chunks::chunk_set::ChunkSet;
use chunks::{ChunkRange, Version};

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

    /// The chunks, in order.
    pub fn ranges(&self) -> impl Iterator<Item = ChunkRange> {
        self.chunks.ranges()
    }

    /// Enters what a journal of the target says.
    pub(crate) fn apply(&mut self, entry: &Written) {
        match *entry {
            Written::Version(version) => {
                self.version = version;
                self.chunks.clear();
            }
            Written::Forgotten(range) => self.chunks.remove(range),
            // Nobody asks for chunks of no version.
            _ if self.version.is_none() => {}
            Written::Zeros(range) | Written::Same(range) => {
                self.chunks.insert(range);
            }
            Written::Data { chunk, .. } => {
                self.chunks.insert(chunk.into());
            }
            Written::Bad(_) => {}
        }
    }
}
