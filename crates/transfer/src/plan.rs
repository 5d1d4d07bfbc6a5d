//! What to look at, and who looks at it: a cursor over the extents of all disks from which the streams claim pieces.

use std::sync::Mutex;

use crate::hashes::{ChunkHashes, RunKind};

/// Chunks in one claim of data: 32 MiB with the usual chunk.
const CLAIM_CHUNKS: u64 = 32;

/// A stretch of a disk, in bytes, as the source's file system tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
}

/// A piece of work for one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Read these chunks, and send what the receiver does not have.
    Read {
        /// Position in the list of disks.
        disk: usize,
        /// First chunk.
        start: u64,
        /// How many.
        count: u64,
    },
    /// These chunks are holes.
    Hole {
        /// Position in the list of disks.
        disk: usize,
        /// First chunk.
        start: u64,
        /// How many.
        count: u64,
    },
}

/// Cuts a disk into claims: chunks that an extent of data touches are read, all others are holes.
pub fn claims(disk: usize, size_bytes: u64, chunk_bytes: u32, data: &[Extent]) -> Vec<Claim> {
    let chunk_bytes = u64::from(chunk_bytes);
    let chunks = size_bytes.div_ceil(chunk_bytes);
    let mut claims = Vec::new();
    let mut next = 0;
    let hole_until = |next: &mut u64, chunk: u64, claims: &mut Vec<Claim>| {
        if *next < chunk {
            claims.push(Claim::Hole {
                disk,
                start: *next,
                count: chunk - *next,
            });
            *next = chunk;
        }
    };
    for extent in data
        .iter()
        .filter(|extent| extent.start < extent.end.min(size_bytes))
    {
        let first = (extent.start / chunk_bytes).max(next);
        let end = extent.end.min(size_bytes).div_ceil(chunk_bytes);
        hole_until(&mut next, first, &mut claims);
        while next < end {
            let count = (end - next).min(CLAIM_CHUNKS);
            claims.push(Claim::Read {
                disk,
                start: next,
                count,
            });
            next += count;
        }
    }
    hole_until(&mut next, chunks, &mut claims);
    claims
}

/// The cursor that all streams share: each claims the next piece when it is done with its last.
#[derive(Debug)]
pub struct Cursor {
    claims: Mutex<std::vec::IntoIter<Claim>>,
}

impl Cursor {
    /// A cursor over claims, in their order.
    pub fn new(claims: Vec<Claim>) -> Self {
        Self {
            claims: Mutex::new(claims.into_iter()),
        }
    }

    /// The next piece; `None` when all are taken.
    pub fn claim(&self) -> Option<Claim> {
        self.claims
            .lock()
            .expect("no holder of this lock can panic")
            .next()
    }
}

/// The parts of a hole that the receiver does not already know to be zeros.
pub fn zeros_to_send(receiver: &ChunkHashes, start: u64, count: u64) -> Vec<(u64, u64)> {
    // Zeros that are to be made go into one piece across what kind of other content they replace.
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    for run in receiver.runs(start, start + count) {
        match pieces.last_mut() {
            _ if run.kind == RunKind::Zero => {}
            Some(last) if last.0 + last.1 == run.start => last.1 += run.count,
            _ => pieces.push((run.start, run.count)),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every chunk is claimed once, in order, and every byte of data lies in a chunk that is read.
        #[test]
        fn claims_cover_the_disk_once(
            size in 0_u64..5000, chunk in 1_u32..64, mut cuts in proptest::collection::vec(0_u64..6000, 0..12)
        ) {
            cuts.sort_unstable();
            let data: Vec<Extent> = cuts.chunks_exact(2).map(|pair| Extent { start: pair[0], end: pair[1] }).collect();
            let mut next = 0;
            let mut read = Vec::new();
            for claim in claims(0, size, chunk, &data) {
                let (start, count, is_read) = match claim {
                    Claim::Read { start, count, .. } => (start, count, true),
                    Claim::Hole { start, count, .. } => (start, count, false),
                };
                prop_assert_eq!(start, next);
                prop_assert!(count > 0);
                next += count;
                read.extend(std::iter::repeat_n(is_read, usize::try_from(count).unwrap()));
            }
            prop_assert_eq!(next, size.div_ceil(u64::from(chunk)));
            for byte in data.iter().flat_map(|extent| extent.start..extent.end.min(size)) {
                prop_assert!(read[usize::try_from(byte / u64::from(chunk)).unwrap()]);
            }
        }
    }
}
