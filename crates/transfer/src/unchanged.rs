//! The chunks that need not be read again: those that were read from the source as it still is.
//!
//! A source that can prove that nothing was written has a [`ContentFingerprint`]: while it is the same, so is every
//! byte. The sender names it before it reads anything. What arrives from then on, or is found to be what is there, was
//! read from the source with that fingerprint. So when the sender comes back, after whatever fall, and names the same,
//! none of these chunks has changed. With another, or none, nothing is known any more.

use chunks::chunk_set::ChunkSet;
use chunks::{ChunkRange, ContentFingerprint};

use crate::chunk_map::Written;

/// The chunks that were read from a source with one fingerprint.
#[derive(Debug)]
pub struct Unchanged {
    fingerprint: Option<ContentFingerprint>,
    chunks: ChunkSet,
}

impl Unchanged {
    /// Of a disk of so many chunks, none.
    pub fn new(chunks: u64) -> Self {
        Self {
            fingerprint: None,
            chunks: ChunkSet::new(chunks),
        }
    }

    /// The fingerprint of what they were read from.
    pub fn fingerprint(&self) -> Option<ContentFingerprint> {
        self.fingerprint
    }

    /// The chunks, in order.
    pub fn ranges(&self) -> impl Iterator<Item = ChunkRange> {
        self.chunks.ranges()
    }

    /// Enters what a journal of the target says.
    pub(crate) fn apply(&mut self, entry: &Written) {
        match *entry {
            Written::Fingerprint(fingerprint) => {
                self.fingerprint = fingerprint;
                self.chunks.clear();
            }
            Written::Forgotten(range) => self.chunks.remove(range),
            // Nobody asks for chunks without a fingerprint.
            _ if self.fingerprint.is_none() => {}
            Written::Zeros(range) | Written::Same(range) => {
                self.chunks.insert(range);
            }
            Written::Data { chunk, .. } => {
                self.chunks.insert(chunk.into());
            }
            Written::Unreadable(_) => {}
        }
    }
}
