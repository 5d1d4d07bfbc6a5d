//! The hashes of a disk's chunks, and the root over them.
//!
//! Disks are mostly nothing: a chunk of zeros is kept as the absence of a hash, and a stretch of zeros costs next to no memory. Data costs
//! 33 MiB for each TiB.

use std::collections::BTreeMap;

/// BLAKE3 of a chunk's bytes, or of a disk's chunk hashes.
pub type Hash = [u8; 32];

/// What is known of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing.
    Unknown,
    /// All its bytes are zero.
    Zero,
    /// The hash of its bytes.
    Data(Hash),
}

/// Chunks in a segment: what one entry of the map holds. Small, because file systems strew their own blocks over an empty disk, and each
/// segment with one of them is spread out.
const SEGMENT: u64 = 64;

/// What is known of every chunk of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHashes {
    size_bytes: u64,
    chunk_bytes: u32,
    segments: BTreeMap<u64, Segment>,
    known: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Every chunk of it is zeros.
    Zero,
    Mixed(Box<[Chunk]>),
}

impl ChunkHashes {
    /// A disk of which nothing is known.
    pub fn new(size_bytes: u64, chunk_bytes: u32) -> Self {
        Self {
            size_bytes,
            chunk_bytes,
            segments: BTreeMap::new(),
            known: 0,
        }
    }

    /// Size of the disk in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes of a chunk; the last one may be shorter.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.size_bytes.div_ceil(u64::from(self.chunk_bytes))
    }

    /// Bytes of one chunk.
    pub fn length_of(&self, chunk: u64) -> u32 {
        let start = chunk * u64::from(self.chunk_bytes);
        u32::try_from((self.size_bytes - start).min(u64::from(self.chunk_bytes)))
            .expect("a chunk's length fits its type")
    }

    /// What is known of a chunk.
    pub fn get(&self, chunk: u64) -> Chunk {
        match self.segments.get(&(chunk / SEGMENT)) {
            None => Chunk::Unknown,
            Some(Segment::Zero) => Chunk::Zero,
            Some(Segment::Mixed(chunks)) => chunks[Self::within(chunk)],
        }
    }

    /// Says what a chunk is.
    pub fn set(&mut self, chunk: u64, value: Chunk) {
        debug_assert!(chunk < self.chunks(), "chunk {chunk} is behind the end");
        let before = self.get(chunk);
        if before == value {
            return;
        }
        self.known =
            self.known + u64::from(value != Chunk::Unknown) - u64::from(before != Chunk::Unknown);
        self.mixed(chunk / SEGMENT)[Self::within(chunk)] = value;
    }

    /// Says that `count` chunks from `start` are zeros.
    pub fn set_zero(&mut self, start: u64, count: u64) {
        let end = start + count;
        debug_assert!(end <= self.chunks(), "chunk {end} is behind the end");
        let mut chunk = start;
        while chunk < end {
            let segment = chunk / SEGMENT;
            let segment_end = ((segment + 1) * SEGMENT).min(self.chunks());
            if chunk == segment * SEGMENT && segment_end <= end {
                let was_known = self.known_in(segment);
                self.segments.insert(segment, Segment::Zero);
                self.known += segment_end - chunk - was_known;
                chunk = segment_end;
            } else {
                self.set(chunk, Chunk::Zero);
                chunk += 1;
            }
        }
    }

    /// Forgets what `count` chunks from `start` are.
    pub fn forget(&mut self, start: u64, count: u64) {
        let end = (start + count).min(self.chunks());
        for run in self.runs(start, end) {
            if run.kind == RunKind::Unknown {
                continue;
            }
            let mut chunk = run.start;
            while chunk < run.start + run.count {
                let segment = chunk / SEGMENT;
                let segment_end = ((segment + 1) * SEGMENT).min(self.chunks());
                if chunk == segment * SEGMENT && segment_end <= end {
                    self.known -= self.known_in(segment);
                    self.segments.remove(&segment);
                    chunk = segment_end;
                } else {
                    self.set(chunk, Chunk::Unknown);
                    chunk += 1;
                }
            }
        }
    }

    /// Chunks of which something is known.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Whether every chunk is known.
    pub fn is_complete(&self) -> bool {
        self.known == self.chunks()
    }

    /// Bytes of the known chunks.
    pub fn known_bytes(&self) -> u64 {
        let chunks = self.chunks();
        let mut bytes = self.known * u64::from(self.chunk_bytes);
        if chunks > 0 && self.get(chunks - 1) != Chunk::Unknown {
            bytes -= u64::from(self.chunk_bytes - self.length_of(chunks - 1));
        }
        bytes
    }

    /// The root: BLAKE3 over size, chunk size and the hash of every chunk in order. `None` while a chunk is unknown.
    pub fn root(&self) -> Option<Hash> {
        if !self.is_complete() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.size_bytes.to_le_bytes());
        hasher.update(&self.chunk_bytes.to_le_bytes());
        let zero = hash_of_zeros(self.chunk_bytes);
        // Long stretches of zeros are hashed in long strokes.
        let zeros = zero.repeat(usize::try_from(SEGMENT).expect("a segment is small"));
        for segment in 0..self.chunks().div_ceil(SEGMENT) {
            let start = segment * SEGMENT;
            let end = (start + SEGMENT).min(self.chunks());
            match self.segments.get(&segment) {
                Some(Segment::Zero) if self.length_of(end - 1) == self.chunk_bytes => {
                    hasher.update(
                        &zeros[..usize::try_from(end - start).expect("a segment is small") * 32],
                    );
                }
                _ => {
                    for chunk in start..end {
                        match self.get(chunk) {
                            Chunk::Data(hash) => hasher.update(&hash),
                            Chunk::Zero if self.length_of(chunk) == self.chunk_bytes => {
                                hasher.update(&zero)
                            }
                            Chunk::Zero => hasher.update(&hash_of_zeros(self.length_of(chunk))),
                            Chunk::Unknown => return None,
                        };
                    }
                }
            }
        }
        Some(*hasher.finalize().as_bytes())
    }

    /// The longest stretches of alike chunks, in order, from chunk `start` to before `end`.
    pub fn runs(&self, start: u64, end: u64) -> Vec<Run> {
        let end = end.min(self.chunks());
        let mut runs: Vec<Run> = Vec::new();
        let mut push = |kind: RunKind, start: u64, count: u64| match runs.last_mut() {
            Some(last) if last.kind == kind => last.count += count,
            _ if count > 0 => runs.push(Run { kind, start, count }),
            _ => {}
        };
        let mut next = start;
        let segments = self
            .segments
            .range(start / SEGMENT..end.div_ceil(SEGMENT).max(start / SEGMENT));
        for (&segment, content) in segments {
            let from = (segment * SEGMENT).max(start);
            let until = ((segment + 1) * SEGMENT).min(end);
            push(RunKind::Unknown, next, from - next);
            match content {
                Segment::Zero => push(RunKind::Zero, from, until - from),
                Segment::Mixed(chunks) => {
                    for chunk in from..until {
                        push(RunKind::of(chunks[Self::within(chunk)]), chunk, 1);
                    }
                }
            }
            next = until;
        }
        push(RunKind::Unknown, next, end.saturating_sub(next));
        runs
    }

    fn within(chunk: u64) -> usize {
        usize::try_from(chunk % SEGMENT).expect("a segment is small")
    }

    fn known_in(&self, segment: u64) -> u64 {
        let length = ((segment + 1) * SEGMENT).min(self.chunks()) - segment * SEGMENT;
        match self.segments.get(&segment) {
            None => 0,
            Some(Segment::Zero) => length,
            Some(Segment::Mixed(chunks)) => chunks
                .iter()
                .filter(|chunk| **chunk != Chunk::Unknown)
                .count() as u64,
        }
    }

    fn mixed(&mut self, segment: u64) -> &mut [Chunk] {
        let length =
            usize::try_from(((segment + 1) * SEGMENT).min(self.chunks()) - segment * SEGMENT)
                .expect("a segment is small");
        let content = self
            .segments
            .entry(segment)
            .or_insert_with(|| Segment::Mixed(vec![Chunk::Unknown; length].into_boxed_slice()));
        if *content == Segment::Zero {
            *content = Segment::Mixed(vec![Chunk::Zero; length].into_boxed_slice());
        }
        match content {
            Segment::Mixed(chunks) => chunks,
            Segment::Zero => unreachable!("a segment of zeros has just been spread out"),
        }
    }
}

/// A stretch of chunks that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What they are.
    pub kind: RunKind,
    /// The first.
    pub start: u64,
    /// How many.
    pub count: u64,
}

/// What the chunks of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Nothing is known of them.
    Unknown,
    /// Zeros.
    Zero,
    /// Data with a hash.
    Data,
}

impl RunKind {
    fn of(chunk: Chunk) -> Self {
        match chunk {
            Chunk::Unknown => Self::Unknown,
            Chunk::Zero => Self::Zero,
            Chunk::Data(_) => Self::Data,
        }
    }
}

/// BLAKE3 of a chunk's bytes.
pub fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A fold over blocks is a shape that the compiler turns into vector instructions; leaving early at each byte is not.
    let (blocks, tail) = bytes.as_chunks::<256>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && tail.iter().all(|&byte| byte == 0)
}

fn hash_of_zeros(length: u32) -> Hash {
    hash(&vec![0; length as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKS: u64 = 300;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u64, u8),
        Zero(u64, u64),
        Forget(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let stretch = (0..CHUNKS).prop_flat_map(|start| (Just(start), 0..=CHUNKS - start));
        prop_oneof![
            (0..CHUNKS, any::<u8>()).prop_map(|(chunk, value)| Step::Set(chunk, value)),
            stretch
                .clone()
                .prop_map(|(start, count)| Step::Zero(start, count)),
            stretch.prop_map(|(start, count)| Step::Forget(start, count)),
        ]
    }

    fn index(chunk: u64) -> usize {
        usize::try_from(chunk).unwrap()
    }

    proptest! {
        /// Whatever is done to it, it says what a plain list of chunks says.
        #[test]
        fn it_is_a_list_of_chunks(
            steps in prop::collection::vec(step(), 0..40), tail in 1_u64..=8, start in 0..CHUNKS, count in 0..=CHUNKS
        ) {
            let mut hashes = ChunkHashes::new((CHUNKS - 1) * 8 + tail, 8);
            let mut list = vec![Chunk::Unknown; index(CHUNKS)];
            for step in steps {
                match step {
                    Step::Set(chunk, value) => {
                        hashes.set(chunk, Chunk::Data([value; 32]));
                        list[index(chunk)] = Chunk::Data([value; 32]);
                    }
                    Step::Zero(start, count) => {
                        hashes.set_zero(start, count);
                        list[index(start)..index(start + count)].fill(Chunk::Zero);
                    }
                    Step::Forget(start, count) => {
                        hashes.forget(start, count);
                        list[index(start)..index(start + count)].fill(Chunk::Unknown);
                    }
                }
            }
            let mut known_bytes = 0;
            for (chunk, value) in (0..).zip(&list) {
                prop_assert_eq!(hashes.get(chunk), *value);
                known_bytes += if *value == Chunk::Unknown { 0 } else { u64::from(hashes.length_of(chunk)) };
            }
            prop_assert_eq!(hashes.known_bytes(), known_bytes);
            let known = list.iter().filter(|chunk| **chunk != Chunk::Unknown).count() as u64;
            prop_assert_eq!(hashes.known(), known);

            let end = (start + count).min(CHUNKS);
            let mut next = start;
            let mut last = None;
            for run in hashes.runs(start, start + count) {
                prop_assert_eq!(run.start, next);
                prop_assert!(run.count > 0);
                prop_assert_ne!(last, Some(run.kind), "runs are as long as can be");
                for chunk in run.start..run.start + run.count {
                    prop_assert_eq!(RunKind::of(list[index(chunk)]), run.kind);
                }
                last = Some(run.kind);
                next = run.start + run.count;
            }
            prop_assert_eq!(next, end.max(start));

            // The root is that of the naive computation, and there is none while something is unknown.
            let naive = list.iter().all(|chunk| *chunk != Chunk::Unknown).then(|| {
                let mut bytes = hashes.size_bytes().to_le_bytes().to_vec();
                bytes.extend(8_u32.to_le_bytes());
                for (chunk, value) in (0..).zip(&list) {
                    bytes.extend(match value {
                        Chunk::Data(hash) => *hash,
                        _ => hash(&vec![0; hashes.length_of(chunk) as usize]),
                    });
                }
                hash(&bytes)
            });
            prop_assert_eq!(hashes.root(), naive);
        }
    }

    #[test]
    fn the_root_of_nothing_but_zeros_is_that_of_its_bytes() {
        let mut hashes = ChunkHashes::new(CHUNKS * 8 - 3, 8);
        hashes.set_zero(0, CHUNKS);
        let mut bytes = hashes.size_bytes().to_le_bytes().to_vec();
        bytes.extend(8_u32.to_le_bytes());
        for _ in 1..CHUNKS {
            bytes.extend(hash(&[0; 8]));
        }
        bytes.extend(hash(&[0; 5]));
        assert_eq!(hashes.root(), Some(hash(&bytes)));
    }

    #[test]
    fn the_zero_test_sees_every_byte() {
        for length in [0, 1, 255, 256, 257, 700] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "byte {at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
