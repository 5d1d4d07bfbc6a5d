//! The chunks of a pass, and their division: a cursor over the extents of all disks from which the streams claim
//! pieces.

use std::sync::Mutex;

use chunks::chunk_set::ChunkSet;
use chunks::hashes::{ChunkHashes, RunKind};
use chunks::{ByteRange, ChunkIndex, ChunkRange};

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
        /// The chunks.
        chunks: ChunkRange,
    },
    /// These chunks are holes.
    Hole {
        /// Position in the list of disks.
        disk: usize,
        /// The chunks.
        chunks: ChunkRange,
    },
}

impl Claim {
    fn chunks(self) -> ChunkRange {
        let (Self::Read { chunks, .. } | Self::Hole { chunks, .. }) = self;
        chunks
    }

    /// The same of other chunks.
    fn of(self, chunks: ChunkRange) -> Self {
        match self {
            Self::Read { disk, .. } => Self::Read { disk, chunks },
            Self::Hole { disk, .. } => Self::Hole { disk, chunks },
        }
    }

    /// Number of chunks that are read for it.
    fn to_read(self) -> u64 {
        match self {
            Self::Read { chunks, .. } => chunks.count,
            Self::Hole { .. } => 0,
        }
    }

    /// So many of its chunks at most, and the others.
    fn split(self, most: u64) -> (Self, Option<Self>) {
        let (first, rest) = self.chunks().split(most);
        (self.of(first), (!rest.is_empty()).then(|| self.of(rest)))
    }

    /// The piece for one stream, and what is left.
    fn cut(self) -> (Self, Option<Self>) {
        self.split(match self {
            Self::Read { .. } => CLAIM_CHUNKS,
            Self::Hole { .. } => CLAIM_HOLE,
        })
    }
}

/// The chunks that a pass inspects. Chunks that the receiver does not have are inspected in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Candidates {
    /// All of them.
    #[default]
    All,
    /// Those that these extents touch. Whoever names them answers for the rest: that since a pass that the receiver has
    /// whole, nothing else was written. The roots of both sides agree on what was not looked at, whatever the disk
    /// holds.
    Changed(Vec<ByteRange>),
}

impl Candidates {
    /// The chunks to look at, in order; all others are as the receiver has them. `unchanged` are chunks that were read
    /// since anything has changed.
    pub fn to_inspect(&self, receiver: &ChunkHashes, unchanged: &[ChunkRange]) -> Vec<ChunkRange> {
        if *self == Self::All && unchanged.is_empty() {
            return Vec::from_iter((!receiver.all().is_empty()).then(|| receiver.all()));
        }
        let mut to_inspect = ChunkSet::new(receiver.chunks());
        match self {
            Self::All => {
                to_inspect.insert(receiver.all());
            }
            Self::Changed(changed) => {
                for range in changed {
                    to_inspect.insert(range.chunks(receiver.chunk_bytes()));
                }
            }
        }
        for range in unchanged {
            to_inspect.remove(*range);
        }
        let unknown = receiver
            .runs(receiver.all())
            .filter(|run| run.kind == RunKind::Unknown);
        for run in unknown {
            to_inspect.insert(run.chunks);
        }
        // What could not be read may be read this time.
        for chunk in receiver.unreadable_chunks(receiver.all()) {
            to_inspect.insert(chunk.into());
        }
        to_inspect.ranges().collect()
    }
}

/// The parts of claims of one disk that lie in the chunks to look at; both are in order.
pub fn only(claims: Vec<Claim>, to_inspect: &[ChunkRange]) -> Vec<Claim> {
    let mut parts = Vec::new();
    let mut next = 0;
    for claim in claims {
        let chunks = claim.chunks();
        while let Some(range) = to_inspect.get(next) {
            let part = chunks.intersection(*range);
            if !part.is_empty() {
                parts.push(claim.of(part));
            }
            if range.end() > chunks.end() {
                break;
            }
            next += 1;
        }
    }
    parts
}

/// Cuts a disk into claims, as long as can be: chunks that an extent of data touches are read, all others are holes.
pub fn claims(disk: usize, size_bytes: u64, chunk_bytes: u32, data: &[ByteRange]) -> Vec<Claim> {
    let end = ChunkIndex(size_bytes.div_ceil(u64::from(chunk_bytes)));
    let mut claims = Vec::new();
    let mut next = ChunkIndex(0);
    let hole_until = |next: &mut ChunkIndex, chunk: ChunkIndex, claims: &mut Vec<Claim>| {
        if *next < chunk {
            let chunks = ChunkRange::between(*next, chunk);
            claims.push(Claim::Hole { disk, chunks });
            *next = chunk;
        }
    };
    for extent in data {
        let on_disk = ByteRange {
            end: extent.end.min(size_bytes),
            ..*extent
        };
        let touched = on_disk.chunks(chunk_bytes);
        if touched.end() <= next || touched.is_empty() {
            continue;
        }
        hole_until(&mut next, touched.first, &mut claims);
        let touched = ChunkRange::between(next, touched.end());
        match claims.last_mut() {
            Some(Claim::Read { chunks, .. }) => chunks.count += touched.count,
            _ => claims.push(Claim::Read {
                disk,
                chunks: touched,
            }),
        }
        next = touched.end();
    }
    hole_until(&mut next, end, &mut claims);
    claims
}

/// The cursor that all streams share: each claims the next piece when it is done with its last.
///
/// It stands at two places at once. Data that packs and data that does not lie in long runs: from one place alone
/// all streams would wait for the processors in the one, and for the link in the other. More places would gain little,
/// and cost a disk with heads more seeks.
#[derive(Debug)]
pub struct Cursor {
    /// Claims that are left from the beginning and from the middle, the next one last.
    places: Mutex<[Vec<Claim>; 2]>,
}

impl Cursor {
    /// A cursor over claims; as much is read before its middle as behind. At both places they are in their order. Long
    /// ones are cut when they are claimed.
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

    /// The next piece for a stream by its number: at one of the places, or at the other where nothing is left. `None`
    /// when all are taken.
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
pub fn zeros_to_send(receiver: &ChunkHashes, hole: ChunkRange) -> Vec<ChunkRange> {
    // Zeros that are to be made go into one piece across what kind of other content they replace. Zeros in the place of
    // what could not be read are other content too.
    let mut to_send = ChunkSet::new(receiver.chunks());
    let others = receiver
        .runs(hole)
        .filter(|run| run.kind != RunKind::Zero)
        .map(|run| run.chunks);
    let unreadable = receiver.unreadable_chunks(hole).map(ChunkRange::from);
    for range in others.chain(unreadable) {
        to_send.insert(range);
    }
    to_send.ranges().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use chunks::hashes::Chunk;

    use super::*;

    proptest! {
        /// A pass over a changed set looks at each chunk that it names and that is not unchanged, and at each that the
        /// receiver lacks, once, and at nothing else.
        #[test]
        fn a_pass_looks_at_what_changed_and_what_is_missing(
            known in proptest::collection::vec(any::<bool>(), 1..200), unchanged in proptest::collection::vec(any::<bool>(), 200), mut cuts in proptest::collection::vec(0_u64..2000, 0..12)
        ) {
            let chunks = known.len() as u64;
            let mut receiver = ChunkHashes::new(chunks * 8 - 3, 8);
            for (chunk, _) in (0..).zip(&known).filter(|(_, is_known)| **is_known) {
                receiver.set(ChunkIndex(chunk), Chunk::Data([1; 32])).unwrap();
            }
            let unchanged_ones: Vec<ChunkRange> = (0..chunks).zip(&unchanged).filter(|(_, is_unchanged)| **is_unchanged).map(|(chunk, _)| ChunkRange::new(chunk, 1)).collect();
            // As they come: in any order, over each other, and beyond the disk's end.
            let changed: Vec<ByteRange> = cuts.chunks_exact_mut(2).map(|pair| {
                pair.sort_unstable();
                ByteRange { start: pair[0], end: pair[1] }
            }).collect();
            let to_inspect = Candidates::Changed(changed.clone()).to_inspect(&receiver, &unchanged_ones);
            let everything = claims(0, chunks * 8 - 3, 8, &[ByteRange { start: 100, end: 900 }]);
            let mut looked = vec![0; known.len()];
            for claim in only(everything, &to_inspect) {
                claim.chunks().iter().for_each(|chunk| looked[usize::try_from(chunk.0).unwrap()] += 1);
            }
            for (chunk, is_known) in (0_u64..).zip(&known) {
                let is_changed = changed.iter().any(|extent| extent.start < extent.end && extent.start < (chunk + 1) * 8 && extent.end > chunk * 8);
                prop_assert_eq!(looked[usize::try_from(chunk).unwrap()], i32::from(is_changed && !unchanged[usize::try_from(chunk).unwrap()] || !is_known), "chunk {}", chunk);
            }
            prop_assert_eq!(Candidates::All.to_inspect(&receiver, &[]), vec![ChunkRange::new(0, chunks)]);
        }

        /// Every chunk is claimed once, every byte of data lies in a chunk that is read, and one stream alone goes
        /// through the disk in order.
        #[test]
        fn claims_cover_the_disk_once(
            size in 0_u64..5000, chunk in 1_u32..64, mut cuts in proptest::collection::vec(0_u64..6000, 0..12), streams in 1_usize..4
        ) {
            cuts.sort_unstable();
            let data: Vec<ByteRange> = cuts.chunks_exact(2).map(|pair| ByteRange { start: pair[0], end: pair[1] }).collect();
            let mut read = vec![None; usize::try_from(size.div_ceil(u64::from(chunk))).unwrap()];
            let mut next = 0;
            let cursor = Cursor::new(claims(0, size, chunk, &data));
            let mut turns = (0..streams).cycle();
            while let Some(claim) = cursor.claim(turns.next().unwrap()) {
                let chunks = claim.chunks();
                prop_assert!(streams > 1 || chunks.first.0 == next);
                prop_assert!(!chunks.is_empty() && claim.to_read() <= CLAIM_CHUNKS);
                next = chunks.end().0;
                for chunk in chunks.iter() {
                    let twice = read[usize::try_from(chunk.0).unwrap()].replace(claim.to_read() > 0);
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
            ByteRange { start: 0, end: 300 },
            ByteRange {
                start: 900,
                end: 1000,
            },
        ];
        let cursor = Cursor::new(claims(0, 1000, 1, &extents));
        let first = |stream| cursor.claim(stream).unwrap().chunks();
        let thirty_two = |first| ChunkRange::new(first, 32);
        assert_eq!([first(0), first(1)], [thirty_two(0), thirty_two(200)]);
        assert_eq!([first(2), first(3)], [thirty_two(32), thirty_two(232)]);
    }

    #[test]
    fn a_stream_whose_place_is_done_helps_at_the_other() {
        let cursor = Cursor::new(claims(0, 100, 1, &[ByteRange { start: 0, end: 100 }]));
        let taken: Vec<u64> = std::iter::from_fn(|| cursor.claim(1))
            .map(|claim| claim.chunks().first.0)
            .collect();
        assert_eq!(taken, [50, 82, 0, 32]);
    }
}
