//! What to look at, and who looks at it: a cursor over the extents of all disks from which the streams claim pieces.

use std::sync::Mutex;

use chunks::hashes::{ChunkHashes, RunKind};
use chunks::{Extent, without};

/// Chunks in one claim of data: 32 MiB with the usual chunk.
const CLAIM_CHUNKS: u64 = 32;

/// Chunks in one claim of a hole: 1 TiB with the usual chunk. What the receiver has of it is gone through at once.
const CLAIM_HOLE: u64 = 1 << 20;

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

impl Claim {
    /// The first chunk, and how many.
    fn chunks(self) -> (u64, u64) {
        let (Self::Read { start, count, .. } | Self::Hole { start, count, .. }) = self;
        (start, count)
    }

    /// The same of other chunks.
    fn of(self, start: u64, count: u64) -> Self {
        match self {
            Self::Read { disk, .. } => Self::Read { disk, start, count },
            Self::Hole { disk, .. } => Self::Hole { disk, start, count },
        }
    }

    /// How many chunks are read for it.
    fn to_read(self) -> u64 {
        match self {
            Self::Read { count, .. } => count,
            Self::Hole { .. } => 0,
        }
    }

    /// So many of its chunks at most, and the others.
    fn split(self, most: u64) -> (Self, Option<Self>) {
        let (start, count) = self.chunks();
        if count <= most {
            return (self, None);
        }
        let rest = self.of(start + most, count - most);
        (self.of(start, most), Some(rest))
    }

    /// The piece for one stream, and what is left.
    fn cut(self) -> (Self, Option<Self>) {
        self.split(match self {
            Self::Read { .. } => CLAIM_CHUNKS,
            Self::Hole { .. } => CLAIM_HOLE,
        })
    }
}

/// Which chunks a pass looks at. What the receiver does not have is looked at in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Candidates {
    /// All of them.
    #[default]
    All,
    /// Those that these extents touch. Whoever names them answers for the rest: that since a pass that the receiver has whole, nothing else
    /// was written. The roots of both sides agree on what was not looked at, whatever the disk holds.
    Changed(Vec<Extent>),
}

impl Candidates {
    /// The chunks to look at, as first chunk and number, in order; all others are as the receiver has them. `fresh` are chunks that were read since
    /// anything has changed, in the same way.
    pub fn to_look_at(&self, receiver: &ChunkHashes, fresh: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let chunks = receiver.chunks();
        let chunk_bytes = u64::from(receiver.chunk_bytes());
        let touched = match self {
            Self::All => vec![(0, chunks)],
            Self::Changed(changed) => merged(
                changed
                    .iter()
                    .filter(|extent| extent.start < extent.end)
                    .map(|extent| {
                        let first = extent.start / chunk_bytes;
                        (first, extent.end.div_ceil(chunk_bytes).min(chunks))
                    })
                    .collect(),
            ),
        };
        let touched = stale(&touched, fresh);
        let unknown = receiver
            .runs(0, chunks)
            .filter(|run| run.kind == RunKind::Unknown)
            .map(|run| (run.start, run.start + run.count));
        // What could not be read may be read this time.
        let bad = receiver
            .bad_chunks(0, chunks)
            .map(|chunk| (chunk, chunk + 1));
        merged(touched.into_iter().chain(unknown).chain(bad).collect())
    }
}

/// What is left of stretches in order without those that are fresh, as first chunk and that behind the last.
fn stale(stretches: &[(u64, u64)], fresh: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let extents = |stretches: &[(u64, u64)]| -> Vec<Extent> {
        let ends = stretches
            .iter()
            .map(|&(start, count)| (start, start + count));
        ends.map(|(start, end)| Extent { start, end }).collect()
    };
    let fresh = fresh
        .iter()
        .map(|&(start, count)| (start, start.saturating_add(count)));
    let left = without(&extents(stretches), &extents(&merged(fresh.collect())));
    left.iter()
        .map(|extent| (extent.start, extent.end))
        .collect()
}

/// Stretches that cover the same chunks in order, as first chunk and number, from such that are first chunk and that behind the last.
fn merged(mut stretches: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    stretches.retain(|(start, end)| start < end);
    stretches.sort_unstable();
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    for (start, end) in stretches {
        match pieces.last_mut() {
            Some((last, count)) if start <= *last + *count => {
                *count = (*count).max(end - *last);
            }
            _ => pieces.push((start, end - start)),
        }
    }
    pieces
}

/// The parts of claims of one disk that lie in the chunks to look at; both are in order.
pub fn only(claims: Vec<Claim>, look_at: &[(u64, u64)]) -> Vec<Claim> {
    let mut parts = Vec::new();
    let mut next = 0;
    for claim in claims {
        let (start, count) = claim.chunks();
        while let Some((first, number)) = look_at.get(next) {
            let (from, until) = (start.max(*first), (start + count).min(first + number));
            if from < until {
                parts.push(claim.of(from, until - from));
            }
            if first + number > start + count {
                break;
            }
            next += 1;
        }
    }
    parts
}

/// Cuts a disk into claims, as long as can be: chunks that an extent of data touches are read, all others are holes.
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
        if next >= end {
            continue;
        }
        match claims.last_mut() {
            Some(Claim::Read { count, .. }) => *count += end - next,
            _ => claims.push(Claim::Read {
                disk,
                start: next,
                count: end - next,
            }),
        }
        next = end;
    }
    hole_until(&mut next, chunks, &mut claims);
    claims
}

/// The cursor that all streams share: each claims the next piece when it is done with its last.
///
/// It stands at two places at once. Data that packs and data that does not lie in long stretches: from one place alone all streams would wait for the
/// processors in the one, and for the link in the other. More places would gain little, and cost a disk with heads more seeks.
#[derive(Debug)]
pub struct Cursor {
    /// What is left from the beginning and from the middle, the next piece last.
    places: Mutex<[Vec<Claim>; 2]>,
}

impl Cursor {
    /// A cursor over claims; as much is read before its middle as behind. At both places they are in their order. Long ones are cut when they are claimed.
    pub fn new(claims: Vec<Claim>) -> Self {
        let to_read: u64 = claims.iter().map(|claim| claim.to_read()).sum();
        let mut room = to_read.div_ceil(2);
        let [mut front, mut back] = [Vec::new(), Vec::new()];
        for claim in claims {
            if room == 0 {
                back.push(claim);
                continue;
            }
            let (before, behind) = match claim {
                Claim::Read { .. } => claim.split(room),
                Claim::Hole { .. } => (claim, None),
            };
            room -= before.to_read();
            front.push(before);
            back.extend(behind);
        }
        front.reverse();
        back.reverse();
        Self {
            places: Mutex::new([front, back]),
        }
    }

    /// The next piece for a stream by its number: at one of the places, or at the other where nothing is left. `None` when all are taken.
    pub fn claim(&self, stream: usize) -> Option<Claim> {
        let mut places = self
            .places
            .lock()
            .expect("no holder of this lock can panic");
        let [front, back] = &mut *places;
        let place = if stream.is_multiple_of(2) && !front.is_empty() || back.is_empty() {
            front
        } else {
            back
        };
        let (piece, rest) = place.pop()?.cut();
        place.extend(rest);
        Some(piece)
    }
}

/// The parts of a hole that the receiver does not already know to be zeros.
pub fn zeros_to_send(receiver: &ChunkHashes, start: u64, count: u64) -> Vec<(u64, u64)> {
    // Zeros that are to be made go into one piece across what kind of other content they replace. Zeros in the place of what could not be read
    // are other content too.
    let others = receiver
        .runs(start, start + count)
        .filter(|run| run.kind != RunKind::Zero)
        .map(|run| (run.start, run.start + run.count));
    let bad = receiver
        .bad_chunks(start, start + count)
        .map(|chunk| (chunk, chunk + 1));
    merged(others.chain(bad).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use chunks::hashes::Chunk;

    use super::*;

    proptest! {
        /// A pass over a changed set looks at each chunk that it names and that is not fresh, and at each that the receiver lacks, once, and at nothing else.
        #[test]
        fn a_pass_looks_at_what_changed_and_what_is_missing(
            known in proptest::collection::vec(any::<bool>(), 1..200), fresh in proptest::collection::vec(any::<bool>(), 200), mut cuts in proptest::collection::vec(0_u64..2000, 0..12)
        ) {
            let chunks = known.len() as u64;
            let mut receiver = ChunkHashes::new(chunks * 8 - 3, 8);
            for (chunk, _) in (0..).zip(&known).filter(|(_, is_known)| **is_known) {
                receiver.set(chunk, Chunk::Data([1; 32])).unwrap();
            }
            let fresh_ones: Vec<(u64, u64)> = (0..chunks).zip(&fresh).filter(|(_, is_fresh)| **is_fresh).map(|(chunk, _)| (chunk, 1)).collect();
            // As they come: in any order, over each other, and beyond the disk's end.
            let changed: Vec<Extent> = cuts.chunks_exact_mut(2).map(|pair| {
                pair.sort_unstable();
                Extent { start: pair[0], end: pair[1] }
            }).collect();
            let look_at = Candidates::Changed(changed.clone()).to_look_at(&receiver, &fresh_ones);
            let everything = claims(0, chunks * 8 - 3, 8, &[Extent { start: 100, end: 900 }]);
            let mut looked = vec![0; known.len()];
            for claim in only(everything, &look_at) {
                let (start, count) = claim.chunks();
                (start..start + count).for_each(|chunk| looked[usize::try_from(chunk).unwrap()] += 1);
            }
            for (chunk, is_known) in (0_u64..).zip(&known) {
                let is_changed = changed.iter().any(|extent| extent.start < extent.end && extent.start < (chunk + 1) * 8 && extent.end > chunk * 8);
                prop_assert_eq!(looked[usize::try_from(chunk).unwrap()], i32::from(is_changed && !fresh[usize::try_from(chunk).unwrap()] || !is_known), "chunk {}", chunk);
            }
            prop_assert_eq!(Candidates::All.to_look_at(&receiver, &[]), vec![(0, chunks)]);
        }

        /// Every chunk is claimed once, every byte of data lies in a chunk that is read, and one stream alone goes through the disk in order.
        #[test]
        fn claims_cover_the_disk_once(
            size in 0_u64..5000, chunk in 1_u32..64, mut cuts in proptest::collection::vec(0_u64..6000, 0..12), streams in 1_usize..4
        ) {
            cuts.sort_unstable();
            let data: Vec<Extent> = cuts.chunks_exact(2).map(|pair| Extent { start: pair[0], end: pair[1] }).collect();
            let mut read = vec![None; usize::try_from(size.div_ceil(u64::from(chunk))).unwrap()];
            let mut next = 0;
            let cursor = Cursor::new(claims(0, size, chunk, &data));
            let mut turns = (0..streams).cycle();
            while let Some(claim) = cursor.claim(turns.next().unwrap()) {
                let (start, count) = claim.chunks();
                prop_assert!(streams > 1 || start == next);
                prop_assert!(count > 0 && claim.to_read() <= CLAIM_CHUNKS);
                next = start + count;
                for chunk in start..next {
                    let twice = read[usize::try_from(chunk).unwrap()].replace(claim.to_read() > 0);
                    prop_assert_eq!(twice, None, "chunk {}", chunk);
                }
            }
            prop_assert!(read.iter().all(Option::is_some));
            for byte in data.iter().flat_map(|extent| extent.start..extent.end.min(size)) {
                prop_assert_eq!(read[usize::try_from(byte / u64::from(chunk)).unwrap()], Some(true));
            }
        }
    }

    #[test]
    fn two_streams_begin_with_half_of_what_is_to_be_read_between_them() {
        let extents = [
            Extent { start: 0, end: 300 },
            Extent {
                start: 900,
                end: 1000,
            },
        ];
        let cursor = Cursor::new(claims(0, 1000, 1, &extents));
        let first = |stream| cursor.claim(stream).unwrap().chunks();
        assert_eq!((first(0), first(1)), ((0, 32), (200, 32)));
        assert_eq!((first(2), first(3)), ((32, 32), (232, 32)));
    }

    #[test]
    fn a_stream_whose_place_is_done_helps_at_the_other() {
        let cursor = Cursor::new(claims(0, 100, 1, &[Extent { start: 0, end: 100 }]));
        let taken: Vec<u64> = std::iter::from_fn(|| cursor.claim(1))
            .map(|claim| claim.chunks().0)
            .collect();
        assert_eq!(taken, [50, 82, 0, 32]);
    }
}
