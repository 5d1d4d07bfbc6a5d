//! Bytes of a source that can't be read. They are zeros on the target, and whoever vouches for the disk says which they
//! are.
//!
//! A *unreadable range* lies in one chunk: it becomes known with that chunk, crosses the wire in front of it, stands
//! beside it in the same record of the chunk map, and goes when the chunk is written again. So nobody ever takes such
//! zeros for bytes of the source.

use std::collections::BTreeMap;

use crate::ByteRange;

/// Most unreadable ranges of a disk. What loses more is no disk with bad sectors but one that fails as a whole.
pub const MOST_UNREADABLE_RANGES: usize = 16_384;

/// The unreadable ranges of one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnreadableRanges {
    /// From the first byte to that behind the last.
    ranges: BTreeMap<u64, u64>,
}

impl UnreadableRanges {
    /// Number of ranges, each of one chunk.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Adds one.
    pub fn add(&mut self, range: ByteRange) {
        self.ranges.insert(range.start, range.end);
    }

    /// Those that begin in a range of the disk, in order.
    pub fn within(&self, ByteRange { start, end }: ByteRange) -> impl Iterator<Item = ByteRange> {
        self.ranges
            .range(start..end.max(start))
            .map(|(&start, &end)| ByteRange { start, end })
    }

    /// Removes those that begin in a range of the disk.
    pub fn remove(&mut self, range: ByteRange) {
        if !self.ranges.is_empty() {
            self.ranges
                .retain(|at, _| !(range.start..range.end).contains(at));
        }
    }

    /// All of them, in order; what touches across the end of a chunk is one.
    pub fn merged(&self) -> Vec<ByteRange> {
        let mut merged: Vec<ByteRange> = Vec::new();
        for (&start, &end) in &self.ranges {
            match merged.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => merged.push(ByteRange { start, end }),
            }
        }
        merged
    }
}

/// Bytes of ranges together.
pub fn bytes(ranges: &[ByteRange]) -> u64 {
    ranges.iter().map(|range| range.bytes()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn ranges_go_with_their_chunk_and_merge_across_chunks() {
        let mut unreadable = UnreadableRanges::default();
        for known in [range(8, 16), range(16, 20), range(30, 31)] {
            unreadable.add(known);
        }
        assert_eq!(unreadable.merged(), [range(8, 20), range(30, 31)]);
        assert_eq!(bytes(&unreadable.merged()), 13);
        let second: Vec<ByteRange> = unreadable.within(range(16, 24)).collect();
        assert_eq!(second, [range(16, 20)]);
        unreadable.remove(range(16, 24));
        assert_eq!(unreadable.merged(), [range(8, 16), range(30, 31)]);
    }
}
