//! Input from the wire of the data path, and the files that the data path keeps.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chunks::hashes::{Chunk, ChunkHashes, hash};
use chunks::packing::{Codec, Packer, Unpacker};
use chunks::{ByteRange, ChunkIndex, ChunkRange, ContentFingerprint};
use domain::disk::{DiskIndex, Moment};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transfer::chunk_map::{ChunkMap, Opened, Written};
use transfer::disk::Storage;
use transfer::manifest;
use transfer::protocol::{
    self, FRAME_BYTES, Frame, OfferedDisk, Page, SentDisk, ToReceiver, ToSender, VERSION,
};

/// Size of the disk that maps and pages describe: 40 chunks, the last of them short.
const SIZE_BYTES: u64 = 39 * CHUNK + 5000;
const CHUNK_BYTES: u32 = 1 << 16;
const CHUNK: u64 = CHUNK_BYTES as u64;

/// Checks a frame's header: a header that is read and written again reads the same.
pub fn frame(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<FRAME_BYTES>()
        && let Ok(read) = Frame::decode(header)
    {
        assert_eq!(Frame::decode(&read.encode()), Ok(read));
    }
}

/// Checks the payloads of a data stream, each behind its codec and its length: whatever they are, no chunk exceeds the
/// longest one.
pub fn payload(mut bytes: &[u8]) {
    let mut unpacker = Unpacker::default();
    let mut room = vec![0; CHUNK_BYTES as usize];
    while let [codec, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(rest.len().min((*length).into()));
        let codec = [Codec::Raw, Codec::Zstd, Codec::ZstdContinued][usize::from(codec % 3)];
        let Ok(chunk) = unpacker.unpack(codec, payload, &mut room) else {
            return;
        };
        assert!(chunk.len() <= CHUNK_BYTES as usize);
        bytes = rest;
    }
}

/// Checks a message of either side's control stream in the same way. Its statements about a disk must be recorded
/// completely or refused.
pub fn control(bytes: &[u8]) {
    let _any = protocol::version_of_hello(bytes);
    reads_what_it_writes::<ToReceiver>(bytes);
    if let Some(ToSender::Present(page)) = reads_what_it_writes(bytes) {
        let mut hashes = ChunkHashes::new(SIZE_BYTES, CHUNK_BYTES);
        page.record(&mut hashes).expect("a small disk fits memory");
        assert!(hashes.known_bytes() <= SIZE_BYTES);
    }
}

fn reads_what_it_writes<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
) -> Option<M> {
    let read: M = protocol::decode_control(bytes).ok()?;
    let written = protocol::encode_control(&read);
    assert_eq!(protocol::decode_control(&written).as_ref(), Ok(&read));
    Some(read)
}

/// Checks a chunk map: whatever the file contains, it opens, reopens with the same contents, and accepts and keeps the
/// next record.
pub fn journal(bytes: &[u8]) {
    let file = Memory(Arc::new(Mutex::new(bytes.to_vec())));
    let open = || {
        ChunkMap::on(
            Path::new("map"),
            Box::new(file.clone()),
            ChunkHashes::new(SIZE_BYTES, CHUNK_BYTES),
        )
        .expect("memory can be read and written")
    };
    let Opened {
        mut map,
        mut known,
        unchanged,
        unsure,
    } = open();
    assert!(unsure.iter().all(|range| range.fits(known.chunks())));
    assert!(unchanged.ranges().all(|range| range.fits(known.chunks())));
    let next = [
        Written::Forgotten(ChunkRange::new(0, 3)),
        Written::Data {
            chunk: ChunkIndex(1),
            hash: hash(b"one"),
        },
    ];
    let before = list(&mut known);
    assert_eq!(list(&mut open().known), before, "opening changes nothing");
    map.append(&next).expect("memory can be written");
    for entry in &next {
        entry.apply(&mut known).expect("a small disk fits memory");
    }
    let mut again = open();
    assert_eq!(
        list(&mut again.known),
        list(&mut known),
        "the next record stands behind the good ones"
    );
    again.map.close().expect("memory can be written");
    assert!(open().unsure.is_empty(), "a map that was closed is sure");
}

fn list(hashes: &mut ChunkHashes) -> Vec<Chunk> {
    let chunks = hashes.all().iter();
    chunks
        .map(|chunk| hashes.get(chunk).expect("a small disk fits memory"))
        .collect()
}

/// Checks a manifest: its contents have one encoding, and with any bit changed it is refused.
pub fn manifest(bytes: &[u8]) {
    let Ok((head, mut known)) = manifest::read(bytes, "it") else {
        return;
    };
    let mut written = Vec::new();
    let again = manifest::write(
        &mut written,
        head.size_bytes,
        head.chunk_bytes,
        head.unreadable.clone(),
        |chunks| chunks.iter().map(|chunk| known.get(chunk)).collect(),
    );
    assert_eq!(again.expect("what was read can be written"), head);
    assert_eq!(written, bytes);
    for bit in (0..bytes.len() * 8).step_by(bytes.len() / 8 + 1) {
        written[bit / 8] ^= 1 << (bit % 8);
        assert!(
            manifest::read(written.as_slice(), "it").is_err(),
            "bit {bit}"
        );
        written[bit / 8] ^= 1 << (bit % 8);
    }
}

#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("it lies in memory")
}

impl Storage for Memory {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.bytes().resize(at(bytes), 0);
        Ok(())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        let part = bytes.get(at(offset)..at(offset) + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut all = self.bytes();
        let end = at(offset) + bytes.len();
        if all.len() < end {
            all.resize(end, 0);
        }
        all[at(offset)..end].copy_from_slice(bytes);
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write(offset, &vec![0; at(length)])
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.length()?).then_some(offset))
    }

    fn drop_cache(&self, _: u64, _: u64) {}
}

/// Returns good inputs for the targets of this file, by target and name: its corpus in the present protocol and
/// formats.
pub fn examples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let disk = DiskIndex(1);
    let mut known = ChunkHashes::new(SIZE_BYTES, CHUNK_BYTES);
    known.set_zero(ChunkRange::new(0, 7));
    for chunk in ChunkRange::new(7, 5).iter() {
        let hash = hash(&chunk.0.to_le_bytes());
        known
            .set(chunk, Chunk::Data(hash))
            .expect("a small disk fits memory");
    }
    let unreadable = ByteRange {
        start: 3 * CHUNK + 512,
        end: 3 * CHUNK + 1024,
    };
    assert!(known.add_unreadable(unreadable));
    let (page, _) = Page::of(disk, &mut known, ChunkIndex(0)).expect("a small disk fits memory");
    let hello = ToReceiver::Hello {
        version: VERSION,
        ticket: b"a ticket".to_vec(),
        disks: vec![OfferedDisk {
            index: disk,
            size_bytes: SIZE_BYTES,
            fingerprint: Some(ContentFingerprint(hash(b"version"))),
        }],
        transport_reason: "the default".to_owned(),
    };
    let sent = ToReceiver::Sent {
        streams: 2,
        disks: vec![SentDisk {
            index: disk,
            root: hash(b"root"),
            moment: Moment::One,
        }],
    };
    let zeros = Frame::Zeros {
        disk,
        chunks: ChunkRange::new(3, 9),
    };
    let same = Frame::Same {
        disk,
        chunks: ChunkRange::new(13, 5),
    };
    let data = Frame::Data {
        disk,
        chunk: ChunkIndex(12),
        hash: hash(b"data"),
        codec: Codec::Zstd,
        stored_bytes: 4711,
    };
    known.set_zero(ChunkRange::new(12, 28));
    let mut manifest = Vec::new();
    let mut get = |chunks: ChunkRange| chunks.iter().map(|chunk| known.get(chunk)).collect();
    manifest::write(
        &mut manifest,
        SIZE_BYTES,
        CHUNK_BYTES,
        vec![unreadable],
        &mut get,
    )
    .expect("every chunk is known");
    vec![
        ("frame", "zeros", zeros.encode().to_vec()),
        ("frame", "same", same.encode().to_vec()),
        ("frame", "data", data.encode().to_vec()),
        (
            "frame",
            "unreadable",
            Frame::Unreadable {
                disk,
                range: unreadable,
            }
            .encode()
            .to_vec(),
        ),
        ("control", "hello", protocol::encode_control(&hello)),
        ("control", "sent", protocol::encode_control(&sent)),
        (
            "control",
            "left-out",
            protocol::encode_control(&ToReceiver::LeftOut { bytes: 1 << 40 }),
        ),
        (
            "control",
            "present",
            protocol::encode_control(&ToSender::Present(page)),
        ),
        (
            "control",
            "unchanged",
            protocol::encode_control(&ToSender::Unchanged {
                index: disk,
                chunks: vec![ChunkRange::new(0, 3), ChunkRange::new(7, 30)],
            }),
        ),
        ("payload", "chunks", payloads()),
        ("journal", "map", journal_of_each_kind()),
        ("manifest", "mixed", manifest),
    ]
}

/// Returns two chunks of one stream, and one of the next, as [`payload`] reads them.
fn payloads() -> Vec<u8> {
    let text = "words of which a server's disk is full; ".repeat(1000);
    let mut packer = Packer::default();
    let mut written = Vec::new();
    for level in [1, 1, 3] {
        let (codec, packed) = packer.pack(text.as_bytes(), level).expect("text packs");
        written.push(codec as u8);
        written.push(u8::try_from(packed.len()).expect("it packs well"));
        written.extend(packed);
    }
    written
}

fn journal_of_each_kind() -> Vec<u8> {
    let file = Memory(Arc::default());
    let mut map = ChunkMap::on(
        Path::new("map"),
        Box::new(file.clone()),
        ChunkHashes::new(SIZE_BYTES, CHUNK_BYTES),
    )
    .expect("memory can be read and written")
    .map;
    let zeros = Written::Zeros(ChunkRange::new(0, 9));
    let data = Written::Data {
        chunk: ChunkIndex(9),
        hash: hash(b"nine"),
    };
    let unreadable = Written::Unreadable(ByteRange {
        start: 9 * CHUNK,
        end: 9 * CHUNK + 4096,
    });
    let forgotten = Written::Forgotten(ChunkRange::new(4, 2));
    let fingerprint = Written::Fingerprint(Some(ContentFingerprint(hash(b"version"))));
    let same = Written::Same(ChunkRange::new(0, 3));
    for record in [
        &[zeros, data, unreadable][..],
        &[fingerprint, forgotten, same],
    ] {
        map.append(record).expect("memory can be written");
    }
    map.close().expect("memory can be written");
    file.bytes().clone()
}
