//! The file: written and read page by page.

use std::io::{self, Read, Write};

use chunks::hashes::{Chunk, ChunkHashes, Hash, Root, hash_of_zeros, length_of};
use chunks::unreadable::MOST_UNREADABLE_RANGES;
use chunks::{ByteRange, CHUNK_BYTES_ALLOWED, ChunkIndex, ChunkRange};

use super::ManifestError;

const MAGIC: &[u8; 8] = b"WHMANIF2";

/// Chunks of a page: at most 128 KiB of hashes.
const PAGE: u64 = 4096;

/// A disk that is larger would take hours to tell that its manifest is wrong: 1 PiB.
const MOST_BYTES: u64 = 1 << 50;

/// Kinds of pages.
const ZEROS: u8 = 0;
const DATA: u8 = 1;
const MIXED: u8 = 2;

/// The statement of a manifest about its disk as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Size of the source's disk in bytes.
    pub size_bytes: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// Ranges that the source could not read, in order: the disk has zeros there.
    pub unreadable: Vec<ByteRange>,
    /// The root.
    pub root: Hash,
}

impl Head {
    /// Its chunks in pieces of a page each.
    fn pages(&self) -> impl Iterator<Item = ChunkRange> + use<> {
        let chunks = self.size_bytes.div_ceil(u64::from(self.chunk_bytes));
        let all = ChunkRange::new(0, chunks);
        let each = (0..chunks).step_by(PAGE as usize);
        each.map(move |first| ChunkRange::new(first, PAGE).intersection(all))
    }

    /// Bytes of a chunk.
    pub(super) fn length_of(&self, chunk: ChunkIndex) -> u32 {
        length_of(self.size_bytes, self.chunk_bytes, chunk)
    }

    /// The root in hexadecimal.
    pub fn root_hex(&self) -> String {
        blake3::Hash::from(self.root).to_hex().to_string()
    }
}

/// The most bytes that the manifest of a disk has, whatever the disk holds.
pub fn most_bytes(size_bytes: u64, chunk_bytes: u32) -> u64 {
    let least = *CHUNK_BYTES_ALLOWED.start();
    let chunks = size_bytes.div_ceil(u64::from(chunk_bytes.max(least)));
    let around_pages = 8 + 8 + 4 + 4 + 32 + 32;
    let pages = chunks.div_ceil(PAGE) * (1 + PAGE / 8) + chunks * 32;
    around_pages + pages + MOST_UNREADABLE_RANGES as u64 * 16
}

/// Writes the manifest of a disk. `known` answers for every chunk of it, some at a time.
///
/// # Errors
/// The file can't be written, `known` fails, or does not know.
pub fn write(
    mut to: impl Write,
    size_bytes: u64,
    chunk_bytes: u32,
    unreadable: Vec<ByteRange>,
    mut known: impl FnMut(ChunkRange) -> io::Result<Vec<Chunk>>,
) -> io::Result<Head> {
    let mut head = Head {
        size_bytes,
        chunk_bytes,
        unreadable,
        root: [0; 32],
    };
    let mut sum = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        sum.update(bytes);
        to.write_all(bytes)
    };
    put(MAGIC)?;
    put(&size_bytes.to_le_bytes())?;
    put(&chunk_bytes.to_le_bytes())?;
    let mut root = Root::new(size_bytes, chunk_bytes);
    for chunks in head.pages() {
        put(&page(&known(chunks)?, &mut root)?)?;
    }
    put(&unreadable_list(&head.unreadable))?;
    head.root = root.finish(&head.unreadable);
    put(&head.root)?;
    to.write_all(sum.finalize().as_bytes())?;
    to.flush()?;
    Ok(head)
}

fn unreadable_list(unreadable: &[ByteRange]) -> Vec<u8> {
    let count = u32::try_from(unreadable.len()).expect("a disk has few unreadable ranges");
    let mut list = count.to_le_bytes().to_vec();
    for range in unreadable {
        list.extend(range.start.to_le_bytes());
        list.extend(range.bytes().to_le_bytes());
    }
    list
}

fn page(chunks: &[Chunk], root: &mut Root) -> io::Result<Vec<u8>> {
    let mut bits = vec![0_u8; chunks.len().div_ceil(8)];
    let mut hashes: Vec<Hash> = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        match chunk {
            Chunk::Zero => root.add_zeros(1),
            Chunk::Data(hash) => {
                root.add(hash);
                hashes.push(*hash);
                bits[number / 8] |= 1 << (number % 8);
            }
            Chunk::Unknown => return Err(io::Error::other("not every chunk is known")),
        }
    }
    let mut page = match hashes.len() {
        0 => vec![ZEROS],
        all if all == chunks.len() => vec![DATA],
        _ => [vec![MIXED], bits].concat(),
    };
    page.extend(hashes.as_flattened());
    Ok(page)
}

/// Reads a manifest and keeps what it says, in memory.
///
/// # Errors
/// [`ManifestError`]; `path` is what it names.
pub fn read(from: impl Read, path: &str) -> Result<(Head, ChunkHashes), ManifestError> {
    let mut known = None;
    let head = each_page(from, path, |head, chunks, page| {
        let hashes =
            known.get_or_insert_with(|| ChunkHashes::new(head.size_bytes, head.chunk_bytes));
        for (chunk, number) in page.iter().zip(chunks.iter()) {
            hashes
                .set(number, *chunk)
                .map_err(|error| unreadable(path, error))?;
        }
        Ok(())
    })?;
    let nothing = || ChunkHashes::new(head.size_bytes, head.chunk_bytes);
    let mut known = known.unwrap_or_else(nothing);
    for range in &head.unreadable {
        for chunk in range.chunks(head.chunk_bytes).iter() {
            let of_chunk = ChunkRange::from(chunk).bytes(head.chunk_bytes, head.size_bytes);
            known.add_unreadable(range.intersection(of_chunk));
        }
    }
    Ok((head, known))
}

/// Reads a manifest from its beginning to its end and gives its chunks in order, a page at once, to `take`. Only when
/// this has answered is it sure that they are what was written.
///
/// # Errors
/// [`ManifestError`]; that of `take` ends it.
pub(super) fn each_page(
    from: impl Read,
    path: &str,
    mut take: impl FnMut(&Head, ChunkRange, &[Chunk]) -> Result<(), ManifestError>,
) -> Result<Head, ManifestError> {
    let mut reader = Reader {
        from,
        path,
        sum: blake3::Hasher::new(),
    };
    let mut head = reader.head()?;
    let mut root = Root::new(head.size_bytes, head.chunk_bytes);
    for chunks in head.pages() {
        let page = reader.page(&head, chunks)?;
        for chunk in &page {
            match chunk {
                Chunk::Data(hash) => root.add(hash),
                Chunk::Zero | Chunk::Unknown => root.add_zeros(1),
            }
        }
        take(&head, chunks, &page)?;
    }
    head.unreadable = reader.unreadable_list(&head)?;
    head.root = reader.array()?;
    let sum = *reader.sum.finalize().as_bytes();
    if reader.array::<32>()? != sum {
        return Err(reader.damaged("its checksum does not fit it"));
    }
    let mut behind = [0];
    let more = reader.from.read(&mut behind);
    if more.map_err(|error| unreadable(path, error))? > 0 {
        return Err(reader.damaged("something lies behind its end"));
    }
    if head.root != root.finish(&head.unreadable) {
        return Err(reader.damaged("its root does not fit its chunks"));
    }
    Ok(head)
}

fn unreadable(path: &str, source: io::Error) -> ManifestError {
    ManifestError::Read {
        path: path.to_owned(),
        source,
    }
}

struct Reader<'a, R> {
    from: R,
    path: &'a str,
    /// Over everything that was read.
    sum: blake3::Hasher,
}

impl<R: Read> Reader<'_, R> {
    fn damaged(&self, what: &str) -> ManifestError {
        ManifestError::Damaged {
            path: self.path.to_owned(),
            what: what.to_owned(),
        }
    }

    fn malformed(&self, what: String) -> ManifestError {
        ManifestError::Malformed {
            path: self.path.to_owned(),
            what,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ManifestError> {
        self.from
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.damaged("it is cut off"),
                _ => unreadable(self.path, error),
            })?;
        self.sum.update(bytes);
        Ok(())
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], ManifestError> {
        let mut bytes = [0; LENGTH];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn head(&mut self) -> Result<Head, ManifestError> {
        let magic = self.array::<8>()?;
        if magic[0] == b'{' {
            let what = "it is a text of version 1, which is no longer read: make the image again";
            return Err(self.malformed(what.to_owned()));
        }
        if magic != *MAGIC {
            return Err(self.malformed("it is no manifest, or one of a later version".to_owned()));
        }
        let head = Head {
            size_bytes: u64::from_le_bytes(self.array()?),
            chunk_bytes: u32::from_le_bytes(self.array()?),
            unreadable: Vec::new(),
            root: [0; 32],
        };
        if !CHUNK_BYTES_ALLOWED.contains(&head.chunk_bytes) {
            return Err(self.malformed(format!("its chunks have {} bytes", head.chunk_bytes)));
        }
        if head.size_bytes > MOST_BYTES {
            return Err(self.malformed(format!("no disk has {} bytes", head.size_bytes)));
        }
        Ok(head)
    }

    /// There is one way to write it: in order, and what touches is one range.
    fn unreadable_list(&mut self, head: &Head) -> Result<Vec<ByteRange>, ManifestError> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > MOST_UNREADABLE_RANGES {
            return Err(self.damaged("it lists more unreadable ranges than there can be"));
        }
        let mut unreadable: Vec<ByteRange> = Vec::new();
        for _ in 0..count {
            let start = u64::from_le_bytes(self.array()?);
            let length = u64::from_le_bytes(self.array()?);
            let end = start.checked_add(length);
            let follows = unreadable.last().is_none_or(|last| last.end < start);
            match end.filter(|end| length > 0 && *end <= head.size_bytes && follows) {
                Some(end) => unreadable.push(ByteRange { start, end }),
                None => {
                    return Err(
                        self.damaged("its unreadable ranges are not in order, or not of the disk")
                    );
                }
            }
        }
        Ok(unreadable)
    }

    fn page(&mut self, head: &Head, chunks: ChunkRange) -> Result<Vec<Chunk>, ManifestError> {
        let count = usize::try_from(chunks.count).expect("a page is small");
        let [kind] = self.array()?;
        let mut bits = vec![if kind == DATA { 0xff } else { 0 }; count.div_ceil(8)];
        match kind {
            ZEROS | DATA => {}
            MIXED => self.fill(&mut bits)?,
            _ => return Err(self.damaged("a page is of no kind")),
        }
        let is_data = |number: usize| bits[number / 8] & (1 << (number % 8)) != 0;
        let data = (0..count).filter(|number| is_data(*number)).count();
        let is_behind_the_end = |number| kind == MIXED && is_data(number);
        if (count..bits.len() * 8).any(is_behind_the_end)
            || (kind == MIXED && (data == 0 || data == count))
        {
            return Err(self.damaged("a page is not written as it would be"));
        }
        let mut hashes = vec![[0; 32]; data];
        self.fill(hashes.as_flattened_mut())?;
        let mut hashes = hashes.into_iter();
        let next = |number| match is_data(number) {
            true => hashes.next().map_or(Chunk::Unknown, Chunk::Data),
            false => Chunk::Zero,
        };
        let page: Vec<Chunk> = (0..count).map(next).collect();
        if kind == ZEROS {
            return Ok(page);
        }
        let zeros = Chunk::Data(hash_of_zeros(head.chunk_bytes));
        let last = ChunkIndex(chunks.end().0 - 1);
        let last_zeros = Chunk::Data(hash_of_zeros(head.length_of(last)));
        if page.contains(&zeros) || page.last() == Some(&last_zeros) {
            return Err(self.damaged("a chunk of zeros is written as data"));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use chunks::hashes::hash;
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u32 = 4096;

    fn written(size_bytes: u64, chunks: &[Chunk], unreadable: &[ByteRange]) -> (Vec<u8>, Head) {
        let mut file = Vec::new();
        let head = write(&mut file, size_bytes, CHUNK, unreadable.to_vec(), |range| {
            let index = |chunk: ChunkIndex| usize::try_from(chunk.0).unwrap();
            Ok(chunks[index(range.first)..index(range.end())].to_vec())
        });
        (file, head.unwrap())
    }

    fn chunk(is_data: bool, number: u64) -> Chunk {
        if is_data {
            Chunk::Data(hash(&number.to_le_bytes()))
        } else {
            Chunk::Zero
        }
    }

    /// Pages of each kind: 4096 of zeros, 4096 of data, and some of both with a short chunk at the end.
    fn each_kind() -> (Vec<u8>, Head, Vec<Chunk>) {
        let chunks: Vec<Chunk> = (0..2 * PAGE + 11)
            .map(|number| chunk(number >= PAGE && number != 2 * PAGE + 4, number))
            .collect();
        let (file, head) = written((2 * PAGE + 10) * u64::from(CHUNK) + 1, &chunks, &[]);
        (file, head, chunks)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            runs in prop::collection::vec((any::<bool>(), 1_u64..5000), 0..6), short in 0_u64..u64::from(CHUNK),
            cuts in prop::collection::vec(any::<u64>(), 0..8)
        ) {
            let kinds = runs.iter().flat_map(|(is_data, count)| std::iter::repeat_n(*is_data, usize::try_from(*count).unwrap()));
            let chunks: Vec<Chunk> = kinds.zip(0..).map(|(is_data, number)| chunk(is_data, number)).collect();
            let size = (chunks.len() as u64 * u64::from(CHUNK)).saturating_sub(short);
            let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut % size.max(1)).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let unreadable: Vec<ByteRange> = cuts.chunks_exact(2).map(|pair| ByteRange { start: pair[0], end: pair[1] }).collect();
            let (file, head) = written(size, &chunks, &unreadable);
            prop_assert!(file.len() as u64 <= most_bytes(size, CHUNK));
            let (read_head, mut known) = read(file.as_slice(), "it").unwrap();
            prop_assert_eq!(known.root().unwrap(), Some(head.root));
            prop_assert_eq!(known.unreadable(), unreadable);
            prop_assert_eq!(read_head, head);
            for (chunk, number) in chunks.iter().zip(0..) {
                prop_assert_eq!(known.get(ChunkIndex(number)).unwrap(), *chunk);
            }
        }
    }

    #[test]
    fn each_bit_has_a_meaning_and_its_flip_is_seen() {
        // Enough of each part, and few enough bytes to flip them all.
        for (data, count) in [(0_u64, 11_u64), (11, 11), (5, 11)] {
            let chunks: Vec<Chunk> = (0..count)
                .map(|number| chunk(number < data, number))
                .collect();
            let range = |start, end| ByteRange { start, end };
            let (file, _) = written(
                count * u64::from(CHUNK) - 7,
                &chunks,
                &[range(0, 512), range(4000, 9000)],
            );
            read(file.as_slice(), "it").unwrap();
            for bit in 0..file.len() * 8 {
                let mut flipped = file.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = read(flipped.as_slice(), "it");
                assert!(read.is_err(), "bit {bit} of a manifest with {data} hashes");
            }
        }
    }

    #[test]
    fn it_is_whole_or_nothing() {
        let (file, ..) = each_kind();
        for length in [
            0,
            7,
            8,
            19,
            20,
            21,
            22,
            5000,
            file.len() - 33,
            file.len() - 1,
        ] {
            assert!(matches!(
                read(&file[..length], "it"),
                Err(ManifestError::Damaged { .. })
            ));
        }
        let longer = [file.as_slice(), b"\n"].concat();
        assert!(read(longer.as_slice(), "it").is_err());
    }

    /// A file that says the same in another way, with a checksum that fits.
    fn forged(pages: &[u8], chunks: u64, root: Hash) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend((chunks * u64::from(CHUNK)).to_le_bytes());
        file.extend(CHUNK.to_le_bytes());
        file.extend(pages);
        file.extend(0_u32.to_le_bytes());
        file.extend(root);
        let sum = hash(&file);
        file.extend(sum);
        file
    }

    #[test]
    fn there_is_one_way_to_write_it() {
        let some = hash(b"some");
        let root = |chunks: &[Chunk]| {
            let mut root = Root::new(chunks.len() as u64 * u64::from(CHUNK), CHUNK);
            for chunk in chunks {
                match chunk {
                    Chunk::Data(hash) => root.add(hash),
                    _ => root.add_zeros(1),
                }
            }
            root.finish(&[])
        };
        let (data, zero) = (Chunk::Data(some), Chunk::Zero);
        let mixed = [&[MIXED, 0b01][..], &some].concat();
        assert!(read(&*forged(&mixed, 2, root(&[data, zero])), "it").is_ok());
        let zeros = hash_of_zeros(CHUNK);
        let others = [
            (vec![MIXED, 0b00], root(&[zero, zero])),
            (
                [&[MIXED, 0b11][..], &some, &some].concat(),
                root(&[data, data]),
            ),
            ([&[MIXED, 0b101][..], &some].concat(), root(&[data, zero])),
            ([&[DATA][..], &some, &zeros].concat(), root(&[data, zero])),
            ([&[DATA][..], &zeros, &some].concat(), root(&[zero, data])),
            (vec![3], root(&[zero, zero])),
        ];
        for (pages, root) in others {
            let refused = read(&*forged(&pages, 2, root), "it").unwrap_err();
            let is_refused = refused.to_string().contains("page")
                || refused.to_string().contains("written as data");
            assert!(is_refused, "{pages:?}: {refused}");
        }
    }

    #[test]
    fn a_manifest_of_version_1_says_what_to_do() {
        let refused =
            read(&b"{\"format\":\"wherry-manifest\",\"version\":1}"[..], "it").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the manifest it can't be used: it is a text of version 1, which is no longer read: make the image again"
        );
    }
}
