//! The hashes of a disk's chunks, and the root over them.
//!
//! Memory is bounded whatever the disk holds: two bits for each chunk, kept for 64 chunks at once, take 0.6 MiB for each TiB, and the hashes lie in `pages`, of which
//! 4 MiB are in memory. A chunk of zeros is kept as the absence of a hash.

mod pages;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use pages::Pages;

use crate::Extent;
use crate::bad::BadRanges;

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

impl Chunk {
    /// What a chunk of these bytes is.
    pub fn of(bytes: &[u8]) -> Self {
        if is_zero(bytes) {
            Self::Zero
        } else {
            Self::Data(hash(bytes))
        }
    }
}

/// Bytes of one chunk of a disk; the last one may be shorter.
pub fn length_of(size_bytes: u64, chunk_bytes: u32, chunk: u64) -> u32 {
    let left = size_bytes - chunk * u64::from(chunk_bytes);
    u32::try_from(left).map_or(chunk_bytes, |left| left.min(chunk_bytes))
}

/// Chunks in a segment: what one entry of the map holds.
const SEGMENT: u64 = 64;

/// Hashes of zeros that are hashed at once.
const STROKE: usize = 64;

/// What is known of every chunk of one disk.
///
/// What it answers with an [`io::Error`] needs hashes that lie in its file.
#[derive(Debug)]
pub struct ChunkHashes {
    size_bytes: u64,
    chunk_bytes: u32,
    segments: BTreeMap<u64, Segment>,
    /// Of chunks of data. What stands there for others is of no meaning.
    hashes: Pages,
    known: u64,
    /// Of known chunks.
    bad: BadRanges,
}

/// One bit for each chunk.
#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    known: u64,
    /// Of the known ones, those that are not zeros.
    data: u64,
}

impl Segment {
    fn of_kind(self, kind: RunKind) -> u64 {
        match kind {
            RunKind::Unknown => !self.known,
            RunKind::Zero => self.known & !self.data,
            RunKind::Data => self.data,
        }
    }
}

impl ChunkHashes {
    /// A disk of which nothing is known. All that will be stays in memory, 33 MiB for each TiB of data.
    pub fn new(size_bytes: u64, chunk_bytes: u32) -> Self {
        Self::with(size_bytes, chunk_bytes, Pages::new(None))
    }

    /// The same, with bounded memory: the rest goes to a file without a name in this directory, when it is needed.
    pub fn spilling(size_bytes: u64, chunk_bytes: u32, directory: &Path) -> Self {
        let pages = Pages::new(Some(directory.to_owned()));
        Self::with(size_bytes, chunk_bytes, pages)
    }

    fn with(size_bytes: u64, chunk_bytes: u32, hashes: Pages) -> Self {
        Self {
            size_bytes,
            chunk_bytes,
            segments: BTreeMap::new(),
            hashes,
            known: 0,
            bad: BadRanges::default(),
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
        length_of(self.size_bytes, self.chunk_bytes, chunk)
    }

    /// What is known of a chunk, but for its hash.
    pub fn kind(&self, chunk: u64) -> RunKind {
        let segment = self.segments.get(&(chunk / SEGMENT));
        let segment = segment.copied().unwrap_or_default();
        let bit = 1 << (chunk % SEGMENT);
        if segment.data & bit != 0 {
            RunKind::Data
        } else if segment.known & bit != 0 {
            RunKind::Zero
        } else {
            RunKind::Unknown
        }
    }

    /// What is known of a chunk.
    ///
    /// # Errors
    /// Its hash can't be read from the file, as from all that follow.
    pub fn get(&mut self, chunk: u64) -> io::Result<Chunk> {
        Ok(match self.kind(chunk) {
            RunKind::Unknown => Chunk::Unknown,
            RunKind::Zero => Chunk::Zero,
            RunKind::Data => Chunk::Data(self.hashes.get(chunk)?),
        })
    }

    /// Says what a chunk is.
    ///
    /// # Errors
    /// The file can't be written; then the chunk is what it was.
    pub fn set(&mut self, chunk: u64, value: Chunk) -> io::Result<()> {
        debug_assert!(chunk < self.chunks(), "chunk {chunk} is behind the end");
        match value {
            Chunk::Unknown => self.forget(chunk, 1),
            Chunk::Zero => self.set_zero(chunk, 1),
            Chunk::Data(hash) => {
                self.hashes.set(chunk, hash)?;
                self.forget_bad(chunk, chunk + 1);
                let bit = 1 << (chunk % SEGMENT);
                let segment = self.segments.entry(chunk / SEGMENT).or_default();
                self.known += u64::from(segment.known & bit == 0);
                segment.known |= bit;
                segment.data |= bit;
            }
        }
        Ok(())
    }

    /// Says that `count` chunks from `start` are zeros.
    pub fn set_zero(&mut self, start: u64, count: u64) {
        let end = start + count;
        debug_assert!(end <= self.chunks(), "chunk {end} is behind the end");
        if start == end {
            return;
        }
        self.forget_bad(start, end);
        for number in start / SEGMENT..end.div_ceil(SEGMENT) {
            let bits = bits(number, start, end);
            let segment = self.segments.entry(number).or_default();
            self.known += u64::from((bits & !segment.known).count_ones());
            segment.known |= bits;
            segment.data &= !bits;
        }
    }

    /// Forgets what `count` chunks from `start` are.
    pub fn forget(&mut self, start: u64, count: u64) {
        let end = (start + count).min(self.chunks());
        if start >= end {
            return;
        }
        self.forget_bad(start, end);
        let mut empty = Vec::new();
        for (&number, segment) in self
            .segments
            .range_mut(start / SEGMENT..end.div_ceil(SEGMENT))
        {
            let bits = bits(number, start, end);
            self.known -= u64::from((bits & segment.known).count_ones());
            segment.known &= !bits;
            segment.data &= !bits;
            if segment.known == 0 {
                empty.push(number);
            }
        }
        for number in empty {
            self.segments.remove(&number);
        }
    }

    /// Says that the source can't read some bytes of a chunk whose other bytes are known. Goes when the chunk is set again or forgotten. `false` if
    /// they do not lie in one known chunk.
    pub fn add_bad(&mut self, range: Extent) -> bool {
        let chunk = range.start / u64::from(self.chunk_bytes);
        let is_of_one = range.start < range.end
            && chunk < self.chunks()
            && range.end <= self.start_of(chunk) + u64::from(self.length_of(chunk))
            && self.kind(chunk) != RunKind::Unknown;
        if is_of_one {
            self.bad.add(range);
        }
        is_of_one
    }

    /// What the source can't read of chunks from `start` to before `end`, in order, each range in one chunk.
    pub fn bad_within(&self, start: u64, end: u64) -> impl Iterator<Item = Extent> {
        self.bad.within(self.start_of(start), self.start_of(end))
    }

    /// The chunks of those from `start` to before `end` of which the source can't read everything. One may come more than once.
    pub fn bad_chunks(&self, start: u64, end: u64) -> impl Iterator<Item = u64> {
        let chunk_bytes = u64::from(self.chunk_bytes);
        self.bad_within(start, end)
            .map(move |range| range.start / chunk_bytes)
    }

    /// What the source can't read, in order. What touches across chunks is one range.
    pub fn bad(&self) -> Vec<Extent> {
        self.bad.merged()
    }

    /// How many ranges the source can't read, each in one chunk.
    pub fn bad_ranges(&self) -> usize {
        self.bad.count()
    }

    fn forget_bad(&mut self, start: u64, end: u64) {
        self.bad.remove(self.start_of(start), self.start_of(end));
    }

    fn start_of(&self, chunk: u64) -> u64 {
        chunk * u64::from(self.chunk_bytes)
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
        if chunks > 0 && self.kind(chunks - 1) != RunKind::Unknown {
            bytes -= u64::from(self.chunk_bytes - self.length_of(chunks - 1));
        }
        bytes
    }

    /// The root. `None` while a chunk is unknown.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn root(&mut self) -> io::Result<Option<Hash>> {
        if !self.is_complete() {
            return Ok(None);
        }
        let mut root = Root::new(self.size_bytes, self.chunk_bytes);
        let mut next = 0;
        while next < self.chunks() {
            let run = self.run(next, self.chunks());
            next += run.count;
            if run.kind == RunKind::Zero {
                root.add_zeros(run.count);
            } else {
                for chunk in run.start..next {
                    root.add(&self.hashes.get(chunk)?);
                }
            }
        }
        Ok(Some(root.finish(&self.bad())))
    }

    /// The longest stretches of alike chunks, in order, from chunk `start` to before `end`.
    pub fn runs(&self, start: u64, end: u64) -> impl Iterator<Item = Run> {
        let end = end.min(self.chunks());
        let mut next = start;
        std::iter::from_fn(move || {
            (next < end).then(|| {
                let run = self.run(next, end);
                next += run.count;
                run
            })
        })
    }

    /// The longest of alike chunks from `start` on.
    fn run(&self, start: u64, end: u64) -> Run {
        let kind = self.kind(start);
        let mut next = start;
        for (&number, segment) in self.segments.range(start / SEGMENT..end.div_ceil(SEGMENT)) {
            let first = number * SEGMENT;
            if next < first && kind != RunKind::Unknown {
                break;
            }
            next = next.max(first);
            next += u64::from((segment.of_kind(kind) >> (next - first)).trailing_ones());
            if next < first + SEGMENT {
                break;
            }
        }
        // Where no segment is, nothing is known.
        let is_known = self.segments.contains_key(&(next / SEGMENT));
        if kind == RunKind::Unknown && next < end && !is_known {
            next = end;
        }
        let count = next.min(end) - start;
        Run { kind, start, count }
    }
}

/// The bits of a segment's chunks from `start` to before `end`, of which it has at least one.
fn bits(segment: u64, start: u64, end: u64) -> u64 {
    let first = segment * SEGMENT;
    let from = start.max(first) - first;
    let until = end.min(first + SEGMENT) - first;
    (u64::MAX >> (SEGMENT - (until - from))) << from
}

/// The root of a disk, chunk by chunk: BLAKE3 over its size, the chunk size, and the hash of every chunk in order; and where there is something that the source can't
/// read, over the first byte and the length of each range of that.
#[derive(Debug)]
pub struct Root {
    hasher: blake3::Hasher,
    left_bytes: u64,
    chunk_bytes: u32,
    /// The hash of a chunk of zeros, many times: long stretches are hashed in long strokes.
    zeros: Vec<u8>,
}

impl Root {
    /// That of a disk of which no chunk is added yet.
    pub fn new(size_bytes: u64, chunk_bytes: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&size_bytes.to_le_bytes());
        hasher.update(&chunk_bytes.to_le_bytes());
        Self {
            hasher,
            left_bytes: size_bytes,
            chunk_bytes,
            zeros: hash_of_zeros(chunk_bytes).repeat(STROKE),
        }
    }

    /// The next chunk, by its hash.
    pub fn add(&mut self, hash: &Hash) {
        self.left_bytes = self.left_bytes.saturating_sub(u64::from(self.chunk_bytes));
        self.hasher.update(hash);
    }

    /// The next chunks, which are zeros. The last chunk of the disk may be short.
    pub fn add_zeros(&mut self, count: u64) {
        let chunk_bytes = u64::from(self.chunk_bytes);
        let mut whole = count.min(self.left_bytes / chunk_bytes);
        let is_short = whole < count;
        self.left_bytes -= whole * chunk_bytes;
        while whole > 0 {
            let stroke = usize::try_from(whole).map_or(STROKE, |whole| whole.min(STROKE));
            self.hasher
                .update(&self.zeros[..stroke * size_of::<Hash>()]);
            whole -= stroke as u64;
        }
        if is_short {
            let length = u32::try_from(self.left_bytes).expect("it is less than a chunk");
            self.left_bytes = 0;
            self.hasher.update(&hash_of_zeros(length));
        }
    }

    /// The root of what was added, of which the source can't read these ranges.
    pub fn finish(mut self, bad: &[Extent]) -> Hash {
        for range in bad {
            self.hasher.update(&range.start.to_le_bytes());
            self.hasher.update(&(range.end - range.start).to_le_bytes());
        }
        *self.hasher.finalize().as_bytes()
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

impl From<Chunk> for RunKind {
    fn from(chunk: Chunk) -> Self {
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

pub fn hash_of_zeros(length: u32) -> Hash {
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
                        hashes.set(chunk, Chunk::Data([value; 32])).unwrap();
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
                prop_assert_eq!(hashes.get(chunk).unwrap(), *value);
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
                    prop_assert_eq!(RunKind::from(list[index(chunk)]), run.kind);
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
            prop_assert_eq!(hashes.root().unwrap(), naive);
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
        assert_eq!(hashes.root().unwrap(), Some(hash(&bytes)));
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
