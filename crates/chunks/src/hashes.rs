//! The hashes of a disk's chunks, and the root over them.
//!
//! Memory is bounded whatever the disk holds: two bits for each chunk, in two sets, take 0.3 MiB for each TiB, and the
//! hashes lie in `pages`, of which 4 MiB are in memory. A chunk of zeros is kept as the absence of a hash.

mod pages;

use std::io;
use std::path::Path;

use pages::Pages;

use crate::chunk_set::ChunkSet;
use crate::unreadable::UnreadableRanges;
use crate::{ByteRange, ChunkIndex, ChunkRange};

/// BLAKE3 of a chunk's bytes, or of a disk's chunk hashes.
pub type Hash = [u8; 32];

/// The knowledge of a chunk.
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
    /// Returns the kind of a chunk with these bytes, and its hash.
    pub fn of(bytes: &[u8]) -> Self {
        if is_zero(bytes) {
            Self::Zero
        } else {
            Self::Data(hash(bytes))
        }
    }
}

/// Bytes of one chunk of a disk; the last one may be shorter.
pub fn length_of(size_bytes: u64, chunk_bytes: u32, chunk: ChunkIndex) -> u32 {
    let left = size_bytes - chunk.offset(chunk_bytes);
    u32::try_from(left).map_or(chunk_bytes, |left| left.min(chunk_bytes))
}

/// Hashes of zeros that are hashed at once.
const STROKE: usize = 64;

/// The knowledge of every chunk of one disk.
///
/// Methods that return [`io::Error`] may read hashes that were moved to the file.
#[derive(Debug)]
pub struct ChunkHashes {
    size_bytes: u64,
    chunk_bytes: u32,
    known: ChunkSet,
    /// Of the known ones, those that are not zeros.
    data: ChunkSet,
    /// Of chunks of data. What stands there for others is of no meaning.
    hashes: Pages,
    /// Of known chunks.
    unreadable: UnreadableRanges,
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
        let chunks = size_bytes.div_ceil(u64::from(chunk_bytes));
        Self {
            size_bytes,
            chunk_bytes,
            known: ChunkSet::new(chunks),
            data: ChunkSet::new(chunks),
            hashes,
            unreadable: UnreadableRanges::default(),
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

    /// All chunks.
    pub fn all(&self) -> ChunkRange {
        ChunkRange::new(0, self.chunks())
    }

    /// Bytes of one chunk.
    pub fn length_of(&self, chunk: ChunkIndex) -> u32 {
        length_of(self.size_bytes, self.chunk_bytes, chunk)
    }

    /// Returns what is known of a chunk, without its hash.
    pub fn kind(&self, chunk: ChunkIndex) -> RunKind {
        if self.data.contains(chunk) {
            RunKind::Data
        } else if self.known.contains(chunk) {
            RunKind::Zero
        } else {
            RunKind::Unknown
        }
    }

    /// Returns what is known of a chunk.
    ///
    /// # Errors
    /// Its hash can't be read from the file, as from all that follow.
    pub fn get(&mut self, chunk: ChunkIndex) -> io::Result<Chunk> {
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
    pub fn set(&mut self, chunk: ChunkIndex, value: Chunk) -> io::Result<()> {
        debug_assert!(chunk.0 < self.chunks(), "chunk {chunk} is behind the end");
        match value {
            Chunk::Unknown => self.forget(chunk.into()),
            Chunk::Zero => self.set_zero(chunk.into()),
            Chunk::Data(hash) => {
                self.hashes.set(chunk, hash)?;
                self.forget_unreadable(chunk.into());
                self.known.insert(chunk.into());
                self.data.insert(chunk.into());
            }
        }
        Ok(())
    }

    /// Says that chunks are zeros.
    pub fn set_zero(&mut self, range: ChunkRange) {
        debug_assert!(range.fits(self.chunks()), "{range:?} goes behind the end");
        self.forget_unreadable(range);
        self.known.insert(range);
        self.data.remove(range);
    }

    /// Forgets what chunks are.
    pub fn forget(&mut self, range: ChunkRange) {
        let range = range.intersection(self.all());
        self.forget_unreadable(range);
        self.known.remove(range);
        self.data.remove(range);
    }

    /// Says that the source can't read some bytes of a chunk whose other bytes are known. Goes when the chunk is set
    /// again or forgotten. `false` if they do not lie in one known chunk.
    pub fn add_unreadable(&mut self, range: ByteRange) -> bool {
        let chunk = ChunkIndex::at(range.start, self.chunk_bytes);
        let is_of_one = range.start < range.end
            && chunk.0 < self.chunks()
            && range.end <= chunk.offset(self.chunk_bytes) + u64::from(self.length_of(chunk))
            && self.kind(chunk) != RunKind::Unknown;
        if is_of_one {
            self.unreadable.add(range);
        }
        is_of_one
    }

    /// Returns the ranges of these chunks that the source can't read, in order, each in one chunk.
    pub fn unreadable_within(&self, range: ChunkRange) -> impl Iterator<Item = ByteRange> {
        self.unreadable.within(self.bytes_of(range))
    }

    /// Those of these chunks of which the source can't read everything. One may come more than once.
    pub fn unreadable_chunks(&self, range: ChunkRange) -> impl Iterator<Item = ChunkIndex> {
        let chunk_bytes = self.chunk_bytes;
        self.unreadable_within(range)
            .map(move |range| ChunkIndex::at(range.start, chunk_bytes))
    }

    /// Returns the ranges that the source can't read, in order. Ranges that touch across chunks are one.
    pub fn unreadable(&self) -> Vec<ByteRange> {
        self.unreadable.merged()
    }

    /// Number of ranges that the source can't read, each in one chunk.
    pub fn unreadable_ranges(&self) -> usize {
        self.unreadable.count()
    }

    fn forget_unreadable(&mut self, range: ChunkRange) {
        self.unreadable.remove(self.bytes_of(range));
    }

    fn bytes_of(&self, range: ChunkRange) -> ByteRange {
        range.bytes(self.chunk_bytes, self.size_bytes)
    }

    /// Chunks of which something is known.
    pub fn known(&self) -> u64 {
        self.known.count()
    }

    /// Returns true if every chunk is known.
    pub fn is_complete(&self) -> bool {
        self.known() == self.chunks()
    }

    /// Bytes of the known chunks.
    pub fn known_bytes(&self) -> u64 {
        let mut bytes = self.known() * u64::from(self.chunk_bytes);
        if let Some(last) = self.chunks().checked_sub(1).map(ChunkIndex)
            && self.known.contains(last)
        {
            bytes -= u64::from(self.chunk_bytes - self.length_of(last));
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
        let mut next = ChunkIndex(0);
        while next.0 < self.chunks() {
            let run = self.run(next, self.all().end());
            next = run.chunks.end();
            if run.kind == RunKind::Zero {
                root.add_zeros(run.chunks.count);
            } else {
                for chunk in run.chunks.iter() {
                    root.add(&self.hashes.get(chunk)?);
                }
            }
        }
        Ok(Some(root.finish(&self.unreadable())))
    }

    /// The longest runs of alike chunks among these, in order.
    pub fn runs(&self, range: ChunkRange) -> impl Iterator<Item = Run> {
        let range = range.intersection(self.all());
        let mut next = range.first;
        std::iter::from_fn(move || {
            (next < range.end()).then(|| {
                let run = self.run(next, range.end());
                next = run.chunks.end();
                run
            })
        })
    }

    /// The longest of alike chunks from `first` on.
    fn run(&self, first: ChunkIndex, end: ChunkIndex) -> Run {
        let kind = self.kind(first);
        let until = match kind {
            RunKind::Unknown => self.known.next_in(first).unwrap_or(end),
            RunKind::Data => self.data.next_out(first),
            RunKind::Zero => {
                let unknown = self.known.next_out(first);
                self.data.next_in(first).unwrap_or(end).min(unknown)
            }
        };
        Run {
            kind,
            chunks: ChunkRange::between(first, until.min(end)),
        }
    }
}

/// The root of a disk, chunk by chunk: BLAKE3 over its size, the chunk size, and the hash of every chunk in order; and
/// where there is something that the source can't read, over the first byte and the length of each range of that.
#[derive(Debug)]
pub struct Root {
    hasher: blake3::Hasher,
    left_bytes: u64,
    chunk_bytes: u32,
    /// The hash of a chunk of zeros, many times: long runs are hashed in long strokes.
    zeros: Vec<u8>,
}

impl Root {
    /// Begins the root of a disk; no chunk is added yet.
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
    pub fn finish(mut self, unreadable: &[ByteRange]) -> Hash {
        for range in unreadable {
            self.hasher.update(&range.start.to_le_bytes());
            self.hasher.update(&(range.end - range.start).to_le_bytes());
        }
        *self.hasher.finalize().as_bytes()
    }
}

/// Chunks in a row that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Their kind.
    pub kind: RunKind,
    /// The chunks.
    pub chunks: ChunkRange,
}

/// The kind of the chunks of a run.
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

/// Returns true if all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A fold over blocks is a shape that the compiler turns into vector instructions; leaving early at each byte is
    // not.
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

    /// More than a block of a set.
    const CHUNKS: u64 = 2100;

    #[derive(Debug, Clone)]
    enum Step {
        Set(ChunkIndex, u8),
        Zero(ChunkRange),
        Forget(ChunkRange),
    }

    fn step() -> impl Strategy<Value = Step> {
        let range = (0..CHUNKS).prop_flat_map(|first| {
            (0..=CHUNKS - first).prop_map(move |count| ChunkRange::new(first, count))
        });
        prop_oneof![
            (0..CHUNKS, any::<u8>()).prop_map(|(chunk, value)| Step::Set(ChunkIndex(chunk), value)),
            range.clone().prop_map(Step::Zero),
            range.prop_map(Step::Forget),
        ]
    }

    fn index(chunk: ChunkIndex) -> usize {
        usize::try_from(chunk.0).unwrap()
    }

    fn indices(range: ChunkRange) -> std::ops::Range<usize> {
        index(range.first)..index(range.end())
    }

    proptest! {
        /// Whatever is done to it, it says what a plain list of chunks says.
        #[test]
        fn it_is_a_list_of_chunks(
            steps in prop::collection::vec(step(), 0..40), tail in 1_u64..=8, start in 0..CHUNKS, count in 0..=CHUNKS
        ) {
            let mut hashes = ChunkHashes::new((CHUNKS - 1) * 8 + tail, 8);
            let mut list = vec![Chunk::Unknown; index(ChunkIndex(CHUNKS))];
            for step in steps {
                match step {
                    Step::Set(chunk, value) => {
                        hashes.set(chunk, Chunk::Data([value; 32])).unwrap();
                        list[index(chunk)] = Chunk::Data([value; 32]);
                    }
                    Step::Zero(range) => {
                        hashes.set_zero(range);
                        list[indices(range)].fill(Chunk::Zero);
                    }
                    Step::Forget(range) => {
                        hashes.forget(range);
                        list[indices(range)].fill(Chunk::Unknown);
                    }
                }
            }
            let mut known_bytes = 0;
            for (chunk, value) in (0..).map(ChunkIndex).zip(&list) {
                prop_assert_eq!(hashes.get(chunk).unwrap(), *value);
                known_bytes += if *value == Chunk::Unknown { 0 } else { u64::from(hashes.length_of(chunk)) };
            }
            prop_assert_eq!(hashes.known_bytes(), known_bytes);
            let known = list.iter().filter(|chunk| **chunk != Chunk::Unknown).count() as u64;
            prop_assert_eq!(hashes.known(), known);

            let end = (start + count).min(CHUNKS);
            let mut next = start;
            let mut last = None;
            for run in hashes.runs(ChunkRange::new(start, count)) {
                prop_assert_eq!(run.chunks.first.0, next);
                prop_assert!(!run.chunks.is_empty());
                prop_assert_ne!(last, Some(run.kind), "runs are as long as can be");
                for chunk in run.chunks.iter() {
                    prop_assert_eq!(RunKind::from(list[index(chunk)]), run.kind);
                }
                last = Some(run.kind);
                next = run.chunks.end().0;
            }
            prop_assert_eq!(next, end.max(start));

            // The root is that of the naive computation, and there is none while something is unknown.
            let naive = list.iter().all(|chunk| *chunk != Chunk::Unknown).then(|| {
                let mut bytes = hashes.size_bytes().to_le_bytes().to_vec();
                bytes.extend(8_u32.to_le_bytes());
                for (chunk, value) in (0..).map(ChunkIndex).zip(&list) {
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
        hashes.set_zero(hashes.all());
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
