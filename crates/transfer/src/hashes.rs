//! The hashes of a disk's chunks, and the root over them.
//!
//! Disks are mostly nothing: a chunk of zeros is kept as the absence of a hash, and a stretch of such chunks costs no memory.

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

/// Chunks in a segment: what one entry of the map holds.
const SEGMENT: u64 = 1024;

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

    /// Stretches of chunks that are alike: all zeros, all data or all unknown, from the first chunk to the last.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut push = |kind: RunKind, start: u64, count: u64| match runs.last_mut() {
            Some(last) if last.kind == kind => last.count += count,
            _ => runs.push(Run { kind, start, count }),
        };
        let mut next = 0;
        for (&segment, content) in &self.segments {
            let start = segment * SEGMENT;
            let end = (start + SEGMENT).min(self.chunks());
            if next < start {
                push(RunKind::Unknown, next, start - next);
            }
            match content {
                Segment::Zero => push(RunKind::Zero, start, end - start),
                Segment::Mixed(chunks) => {
                    for chunk in start..end {
                        let kind = match chunks[Self::within(chunk)] {
                            Chunk::Unknown => RunKind::Unknown,
                            Chunk::Zero => RunKind::Zero,
                            Chunk::Data(_) => RunKind::Data,
                        };
                        push(kind, chunk, 1);
                    }
                }
            }
            next = end;
        }
        if next < self.chunks() {
            push(RunKind::Unknown, next, self.chunks() - next);
        }
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
