//! A set of chunks of a disk: one bit for each, in blocks that come into being with their first chunk.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{ChunkIndex, ChunkRange};

/// Chunks of a block, and the words that hold them. A block of a whole disk takes 0.15 MiB for each TiB with the usual
/// chunk.
const BLOCK: u64 = 1024;
const WORDS: usize = 16;

/// Chunks of one disk.
#[derive(Debug, Clone)]
pub struct ChunkSet {
    /// Chunks of the disk.
    chunks: u64,
    /// By number; none is empty.
    blocks: BTreeMap<u64, Box<[u64; WORDS]>>,
    /// Chunks in the set.
    count: u64,
}

impl ChunkSet {
    /// Of a disk of so many chunks, none.
    pub fn new(chunks: u64) -> Self {
        Self {
            chunks,
            blocks: BTreeMap::new(),
            count: 0,
        }
    }

    /// Number of chunks in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns true if the chunk is in the set.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        let block = self.blocks.get(&(chunk.0 / BLOCK));
        block.is_some_and(|block| word_from(block, chunk.0 % BLOCK) & 1 != 0)
    }

    /// Adds a range; `false` if a chunk of it was in the set before or is none of the disk's.
    pub fn insert(&mut self, range: ChunkRange) -> bool {
        let on_disk = range.intersection(ChunkRange::new(0, self.chunks));
        let before = self.count;
        for (number, bits) in blocks(on_disk) {
            let block = self.blocks.entry(number).or_default();
            for (word, mask) in words(bits) {
                self.count += u64::from((mask & !block[word]).count_ones());
                block[word] |= mask;
            }
        }
        range.fits(self.chunks) && self.count - before == range.count
    }

    /// Takes out a range.
    pub fn remove(&mut self, range: ChunkRange) {
        let on_disk = range.intersection(ChunkRange::new(0, self.chunks));
        for (number, bits) in blocks(on_disk) {
            let Some(block) = self.blocks.get_mut(&number) else {
                continue;
            };
            for (word, mask) in words(bits) {
                self.count -= u64::from((mask & block[word]).count_ones());
                block[word] &= !mask;
            }
            if **block == [0; WORDS] {
                self.blocks.remove(&number);
            }
        }
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.count = 0;
    }

    /// Its ranges in order, as long as can be.
    pub fn ranges(&self) -> impl Iterator<Item = ChunkRange> {
        let mut next = ChunkIndex(0);
        std::iter::from_fn(move || {
            let first = self.next_in(next)?;
            next = self.next_out(first);
            Some(ChunkRange::between(first, next))
        })
    }

    /// The first chunk from `from` on that is in the set.
    pub fn next_in(&self, from: ChunkIndex) -> Option<ChunkIndex> {
        for (number, block) in self.blocks.range(from.0 / BLOCK..) {
            let start = number * BLOCK;
            let mut bit = from.0.max(start) - start;
            while bit < BLOCK {
                let word = word_from(block, bit);
                if word != 0 {
                    return Some(ChunkIndex(start + bit + u64::from(word.trailing_zeros())));
                }
                bit = (bit / 64 + 1) * 64;
            }
        }
        None
    }

    /// The first chunk from `from` on that is not in the set; behind the disk's last there is one.
    pub fn next_out(&self, from: ChunkIndex) -> ChunkIndex {
        let mut chunk = from.0;
        while let Some(block) = self.blocks.get(&(chunk / BLOCK)) {
            let bit = chunk % BLOCK;
            let in_a_row = u64::from(word_from(block, bit).trailing_ones());
            chunk += in_a_row;
            if in_a_row < 64 - bit % 64 {
                break;
            }
        }
        ChunkIndex(chunk)
    }
}

/// The word of a bit of a block, from that bit on.
fn word_from(block: &[u64; WORDS], bit: u64) -> u64 {
    let word = usize::try_from(bit / 64).expect("a block is small");
    block[word] >> (bit % 64)
}

/// The blocks of a range by number, each with the bits that the range has in it.
fn blocks(range: ChunkRange) -> impl Iterator<Item = (u64, Range<u64>)> {
    let (first, end) = (range.first.0, range.end().0);
    let numbers = match range.is_empty() {
        true => 0..0,
        false => first / BLOCK..end.div_ceil(BLOCK),
    };
    numbers.map(move |number| {
        let start = number * BLOCK;
        let bits = first.max(start) - start..end.min(start + BLOCK) - start;
        (number, bits)
    })
}

/// The words of a block that have some of these bits, each with those bits of it.
fn words(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    (bits.start / 64..bits.end.div_ceil(64)).map(move |word| {
        let from = bits.start.max(word * 64) - word * 64;
        let until = bits.end.min(word * 64 + 64) - word * 64;
        let mask = (u64::MAX >> (64 - (until - from))) << from;
        (usize::try_from(word).expect("a block is small"), mask)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_chunks(
            ranges in prop::collection::vec((any::<bool>(), 0_u64..2500, 0_u64..1400), 0..20),
        ) {
            let mut chunks = ChunkSet::new(4000);
            let mut set = BTreeSet::new();
            for (is_added, start, count) in ranges {
                let range = ChunkRange::new(start, count);
                if is_added {
                    let is_new = (start..start + count).all(|chunk| !set.contains(&chunk));
                    set.extend(start..start + count);
                    prop_assert_eq!(chunks.insert(range), is_new);
                } else {
                    set.retain(|chunk| !(start..start + count).contains(chunk));
                    chunks.remove(range);
                }
                let found: Vec<ChunkRange> = chunks.ranges().collect();
                let listed = found.iter().flat_map(|range| range.iter()).map(|chunk| chunk.0);
                prop_assert!(listed.eq(set.iter().copied()));
                prop_assert!(found.windows(2).all(|two| two[0].end() < two[1].first), "{found:?}");
                prop_assert_eq!(chunks.count(), set.len() as u64);
                prop_assert!((0..4001).all(|chunk| chunks.contains(ChunkIndex(chunk)) == set.contains(&chunk)));
            }
            chunks.clear();
            prop_assert_eq!(chunks.ranges().count(), 0);
            prop_assert_eq!(chunks.count(), 0);
        }
    }

    #[test]
    fn what_is_none_of_the_disk_is_refused() {
        assert!(!ChunkSet::new(64).insert(ChunkRange::new(63, 2)));
        assert!(!ChunkSet::new(64).insert(ChunkRange::new(u64::MAX, 2)));
    }
}
