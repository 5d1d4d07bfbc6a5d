//! Chunks in a row, and bytes in a row.

use serde::{Deserialize, Serialize};

/// The number of a chunk on its disk, from 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ChunkIndex(pub u64);

impl ChunkIndex {
    /// The first byte of the chunk, on a disk with chunks of this size.
    pub fn offset(self, chunk_bytes: u32) -> u64 {
        self.0 * u64::from(chunk_bytes)
    }

    /// The chunk that a byte lies in.
    pub fn at(offset: u64, chunk_bytes: u32) -> Self {
        Self(offset / u64::from(chunk_bytes))
    }

    /// The chunk behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Chunks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRange {
    /// The first.
    pub first: ChunkIndex,
    /// Number of chunks.
    pub count: u64,
}

impl ChunkRange {
    /// So many chunks from this number on.
    pub const fn new(first: u64, count: u64) -> Self {
        Self {
            first: ChunkIndex(first),
            count,
        }
    }

    /// The chunks from `first` to before `end`; none if there are none.
    pub fn between(first: ChunkIndex, end: ChunkIndex) -> Self {
        Self {
            first,
            count: end.0.saturating_sub(first.0),
        }
    }

    /// The chunk behind the last. A range that came from elsewhere may have none: see [`ChunkRange::fits`].
    pub fn end(self) -> ChunkIndex {
        ChunkIndex(self.first.0.saturating_add(self.count))
    }

    /// Returns true if the range has no chunk.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Returns true if a disk of so many chunks has all of these.
    pub fn fits(self, chunks: u64) -> bool {
        self.first
            .0
            .checked_add(self.count)
            .is_some_and(|end| end <= chunks)
    }

    /// The chunks, one by one.
    pub fn iter(self) -> impl Iterator<Item = ChunkIndex> {
        (self.first.0..self.end().0).map(ChunkIndex)
    }

    /// The chunks that both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self::between(self.first.max(other.first), self.end().min(other.end()))
    }

    /// At most so many of the first chunks, and the others.
    #[must_use]
    pub fn split(self, most: u64) -> (Self, Self) {
        let count = self.count.min(most);
        let (first, rest) = (self.first.0, self.first.0 + count);
        (Self::new(first, count), Self::new(rest, self.count - count))
    }

    /// Their bytes on a disk of this size; its last chunk may be short.
    pub fn bytes(self, chunk_bytes: u32, size_bytes: u64) -> ByteRange {
        ByteRange {
            start: self.first.offset(chunk_bytes),
            end: self.end().offset(chunk_bytes).min(size_bytes),
        }
    }
}

impl From<ChunkIndex> for ChunkRange {
    /// The range of one chunk.
    fn from(chunk: ChunkIndex) -> Self {
        Self::new(chunk.0, 1)
    }
}

/// Bytes of a disk in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The bytes that both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        Self {
            start,
            end: self.end.min(other.end).max(start),
        }
    }

    /// The chunks that it touches, on a disk with chunks of this size.
    pub fn chunks(self, chunk_bytes: u32) -> ChunkRange {
        if self.start >= self.end {
            return ChunkRange::new(self.start / u64::from(chunk_bytes), 0);
        }
        ChunkRange::between(
            ChunkIndex::at(self.start, chunk_bytes),
            ChunkIndex(self.end.div_ceil(u64::from(chunk_bytes))),
        )
    }
}

/// Returns what is left of ranges without others. Both are in order.
pub fn without(ranges: &[ByteRange], others: &[ByteRange]) -> Vec<ByteRange> {
    let mut left = Vec::new();
    let mut next = 0;
    for range in ranges {
        let mut start = range.start;
        while let Some(other) = others.get(next) {
            if start < other.start.min(range.end) {
                left.push(ByteRange {
                    start,
                    end: other.start.min(range.end),
                });
            }
            start = start.max(other.end.min(range.end));
            if other.end > range.end {
                // It may reach into the next range.
                break;
            }
            next += 1;
        }
        if start < range.end {
            left.push(ByteRange {
                start,
                end: range.end,
            });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A byte is left if it was there and is in none of the others.
        #[test]
        fn without_leaves_what_only_the_first_have(
            mut ours in proptest::collection::vec(0_u64..200, 0..12), mut others in proptest::collection::vec(0_u64..200, 0..12)
        ) {
            let ranges = |cuts: &mut Vec<u64>| -> Vec<ByteRange> {
                cuts.sort_unstable();
                cuts.chunks_exact(2).map(|pair| ByteRange { start: pair[0], end: pair[1] }).collect()
            };
            let (ours, others) = (ranges(&mut ours), ranges(&mut others));
            let left = without(&ours, &others);
            let holds = |ranges: &[ByteRange], byte| ranges.iter().any(|range| (range.start..range.end).contains(&byte));
            for byte in 0..200 {
                prop_assert_eq!(holds(&left, byte), holds(&ours, byte) && !holds(&others, byte), "byte {}", byte);
            }
            prop_assert!(left.iter().all(|range| range.start < range.end));
            prop_assert!(left.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
