//! Free ranges, as a tool lists them.

use chunks::{ByteRange, CHUNK_BYTES};

/// Most ranges of one file system. What is beyond counts as used.
const MOST: usize = 1 << 20;

/// Collects ranges of blocks and counts them.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    block_bytes: u64,
    blocks: u64,
    open: Option<ByteRange>,
    whole: Vec<ByteRange>,
}

impl Ranges {
    pub(super) fn new(block_bytes: u64) -> Self {
        Self {
            block_bytes,
            ..Self::default()
        }
    }

    /// Adds blocks.
    pub(super) fn add(&mut self, first: u64, count: u64) {
        self.blocks = self.blocks.saturating_add(count);
        let start = first.saturating_mul(self.block_bytes);
        let end = first.saturating_add(count).saturating_mul(self.block_bytes);
        match &mut self.open {
            Some(open) if open.end == start => open.end = end,
            open => {
                let done = open.replace(ByteRange { start, end });
                self.keep(done);
            }
        }
    }

    /// Blocks that were added.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The ranges in bytes, in order, without those that can't hold a whole chunk; `None` if they overlap.
    pub(super) fn in_order(mut self) -> Option<Vec<ByteRange>> {
        let last = self.open.take();
        self.keep(last);
        self.whole.sort_unstable_by_key(|range| range.start);
        let are_apart = self
            .whole
            .windows(2)
            .all(|pair| pair[0].end <= pair[1].start);
        are_apart.then_some(self.whole)
    }

    fn keep(&mut self, range: Option<ByteRange>) {
        let worth = |range: &ByteRange| range.end - range.start >= u64::from(CHUNK_BYTES);
        if self.whole.len() < MOST {
            self.whole.extend(range.filter(worth));
        }
    }
}
