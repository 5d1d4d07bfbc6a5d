//! The messages that cross the wire. Encoding and decoding only: no sockets, no files, and no input that can make them
//! panic.
//!
//! One bidirectional *control* stream carries messages with a header: the sender's [`ToReceiver`], the receiver's
//! [`ToSender`]. Any number of unidirectional *data* streams carry frames: a [`Frame`] header of fixed length, and
//! behind a data frame its payload.

use std::io;
use std::time::Duration;

use chunks::hashes::{Chunk, ChunkHashes, Hash, RunKind};
use chunks::packing::Codec;
use chunks::unreadable::MOST_UNREADABLE_RANGES;
use chunks::{ByteRange, ChunkIndex, ChunkRange, ContentFingerprint};
use domain::disk::{DiskIndex, Moment};
use serde::{Deserialize, Serialize};

use crate::error::RemoteFailure;

/// Version of the protocol. Both sides must speak the same.
pub const VERSION: u16 = 7;

/// Longest control message.
pub const MAX_CONTROL_BYTES: usize = 1 << 20;

/// Most hashes, and most ranges, in a page of what the receiver has.
const PAGE_HASHES: u64 = 16_384;
pub const PAGE_RANGES: usize = 16_384;

/// Most bytes of a probe's stream, and how long the receiver measures it: first QUIC has to find out how large its
/// datagrams may be. On a slow link it goes on, since a stream that has lost a datagram stands and then comes at once:
/// until so much has come as makes little of that, or the longest time is over.
pub const MOST_PROBE_BYTES: u64 = 2 << 30;
pub const PROBE_SETTLES: Duration = Duration::from_millis(120);
pub const PROBE_LASTS: Duration = Duration::from_millis(60);
pub const PROBE_LASTS_AT_MOST: Duration = Duration::from_secs(1);
pub const ENOUGH_PROBE_BYTES: u64 = 8 << 20;

/// Bytes of a frame's header.
pub const FRAME_BYTES: usize = 56;

/// From the sender, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReceiver {
    /// The first message. Its place and its first field stay in every version: see [`version_of_hello`].
    Hello {
        /// See [`VERSION`].
        version: u16,
        /// The ticket as it was assigned.
        ticket: Vec<u8>,
        /// The disks that will be sent.
        disks: Vec<OfferedDisk>,
        /// The reason why the sender took this transport, for people.
        transport_reason: String,
    },
    /// Every data stream is finished.
    Sent {
        /// Number of data streams.
        streams: u32,
        /// Each disk as the sender has found it.
        disks: Vec<SentDisk>,
    },
    /// Before Hello, once: one data stream of nothing in particular follows, and the receiver says how fast it came.
    Probe {
        /// The ticket as it was assigned.
        ticket: Vec<u8>,
    },
    /// Between Hello and Sent: so many bytes of free space are sent as zeros, whatever the disks have there.
    LeftOut {
        /// Of all disks.
        bytes: u64,
    },
}

/// A disk that the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedDisk {
    /// The disk.
    pub index: DiskIndex,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its fingerprint as long as nothing is written to it, if it can tell.
    pub fingerprint: Option<ContentFingerprint>,
}

/// A disk that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDisk {
    /// The disk.
    pub index: DiskIndex,
    /// Its root.
    pub root: Hash,
    /// Says whether it was written while it was read.
    pub moment: Moment,
}

/// From the receiver, on the control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToSender {
    /// The transfer is over. The first of its kind in every version, so that even a stranger can read why.
    Refused(RemoteFailure),
    /// The answer to Hello.
    Welcome {
        /// See [`VERSION`].
        version: u16,
        /// Bytes of a chunk.
        chunk_bytes: u32,
    },
    /// A part of what is durably here.
    Present(Page),
    /// Chunks of what is durably here that were read from the source with the fingerprint that the sender names: they
    /// need not be read again.
    Unchanged {
        /// The disk.
        index: DiskIndex,
        /// In order, at most [`PAGE_RANGES`] of them.
        chunks: Vec<ChunkRange>,
    },
    /// All parts of all disks were told: the sender may begin.
    PresentEnd,
    /// So many bytes of the disk are durable now.
    Durable {
        /// The disk.
        index: DiskIndex,
        /// Bytes of its known chunks.
        bytes: u64,
    },
    /// Every disk is complete and its root is the sender's.
    Received,
    /// The measurement of a probe's stream.
    Probed {
        /// Bytes that were counted.
        bytes: u64,
        /// In so many microseconds.
        micros: u64,
    },
}

/// A part of what the receiver has of a disk: ranges without a gap from chunk `first` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The disk.
    pub index: DiskIndex,
    first: ChunkIndex,
    parts: Vec<Part>,
    /// Ranges of these chunks that the source could not read.
    unreadable: Vec<ByteRange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    Unknown(u64),
    Zeros(u64),
    Data(Vec<Hash>),
}

/// Bytes from the wire that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A control message is not one.
    #[error("a control message is malformed: {0}")]
    Control(String),
    /// A control message is not what was sent.
    #[error("a control message was changed on its way")]
    Changed,
    /// A control message is longer than [`MAX_CONTROL_BYTES`].
    #[error("a control message of {0} bytes is too long")]
    TooLong(usize),
    /// A frame's header is not one.
    #[error("a frame is malformed: {0}")]
    Frame(&'static str),
}

impl Page {
    /// Returns what is known of a disk from chunk `first` on, as far as it fits a message; and where the next page
    /// begins, if there is one.
    ///
    /// # Errors
    /// The hashes can't be read.
    pub fn of(
        index: DiskIndex,
        hashes: &mut ChunkHashes,
        first: ChunkIndex,
    ) -> io::Result<(Self, Option<ChunkIndex>)> {
        let mut parts = Vec::new();
        let mut hashes_left = PAGE_HASHES;
        let end = hashes.all().end();
        let mut next = first;
        while hashes_left > 0 && parts.len() < PAGE_RANGES {
            let Some(run) = hashes.runs(ChunkRange::between(next, end)).next() else {
                break;
            };
            let mut chunks = run.chunks;
            parts.push(match run.kind {
                RunKind::Unknown => Part::Unknown(chunks.count),
                RunKind::Zero => Part::Zeros(chunks.count),
                RunKind::Data => {
                    (chunks, _) = chunks.split(hashes_left);
                    hashes_left -= chunks.count;
                    let mut list = Vec::new();
                    for chunk in chunks.iter() {
                        if let Chunk::Data(hash) = hashes.get(chunk)? {
                            list.push(hash);
                        }
                    }
                    Part::Data(list)
                }
            });
            next = chunks.end();
        }
        let unreadable = hashes.unreadable_within(ChunkRange::between(first, next));
        let page = Self {
            index,
            first,
            parts,
            unreadable: unreadable.collect(),
        };
        Ok((page, (next < end).then_some(next)))
    }

    /// Enters it into what is known; `false` if it does not fit the disk.
    ///
    /// # Errors
    /// The hashes can't be kept.
    pub fn record(&self, hashes: &mut ChunkHashes) -> io::Result<bool> {
        let mut next = self.first;
        for part in &self.parts {
            let count = match part {
                Part::Unknown(count) | Part::Zeros(count) => *count,
                Part::Data(list) => list.len() as u64,
            };
            let chunks = ChunkRange { first: next, count };
            if !chunks.fits(hashes.chunks()) {
                return Ok(false);
            }
            match part {
                Part::Unknown(_) => {}
                Part::Zeros(_) => hashes.set_zero(chunks),
                Part::Data(list) => {
                    for (hash, chunk) in list.iter().zip(chunks.iter()) {
                        hashes.set(chunk, Chunk::Data(*hash))?;
                    }
                }
            }
            next = chunks.end();
        }
        let fits = self
            .unreadable
            .iter()
            .all(|range| hashes.add_unreadable(*range));
        Ok(fits && hashes.unreadable_ranges() <= MOST_UNREADABLE_RANGES)
    }
}

/// The version that a first message names, whatever that version put behind it.
pub fn version_of_hello(body: &[u8]) -> Option<u16> {
    match postcard::take_from_bytes::<(u32, u16)>(body) {
        Ok(((0, version), _)) => Some(version),
        _ => None,
    }
}

/// Encodes a control message's body.
pub fn encode_control(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("control messages hold nothing that has no encoding")
}

/// Bytes in front of a control message's body.
pub const CONTROL_HEADER_BYTES: usize = 12;

/// Returns the header of a control message's body: its length, its CRC-32, and the CRC-32 of both. TLS keeps what
/// passes between two machines; this is for what goes wrong on them.
pub fn control_header(body: &[u8]) -> [u8; CONTROL_HEADER_BYTES] {
    let length = u32::try_from(body.len()).expect("a control message is far below 4 GiB");
    let mut header = [0; CONTROL_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    let sum = crc32fast::hash(&header[..8]);
    header[8..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The length and the CRC-32 of the body behind a header.
///
/// # Errors
/// [`DecodeError::Changed`] and [`DecodeError::TooLong`].
pub fn decode_control_header(
    header: &[u8; CONTROL_HEADER_BYTES],
) -> Result<(usize, u32), DecodeError> {
    let field = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if crc32fast::hash(&header[..8]) != field(8) {
        return Err(DecodeError::Changed);
    }
    let length = field(0) as usize;
    if length > MAX_CONTROL_BYTES {
        return Err(DecodeError::TooLong(length));
    }
    Ok((length, field(4)))
}

/// Decodes a control message's body.
///
/// # Errors
/// [`DecodeError::Control`].
pub fn decode_control<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    postcard::from_bytes(body).map_err(|error| DecodeError::Control(error.to_string()))
}

/// The header of a frame on a data stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Zeros; no payload.
    Zeros {
        /// The disk.
        disk: DiskIndex,
        /// The chunks.
        chunks: ChunkRange,
    },
    /// Bytes that can't be read, of the chunk that the next frame of this stream is about that is not of this kind; no
    /// payload.
    Unreadable {
        /// The disk.
        disk: DiskIndex,
        /// The bytes.
        range: ByteRange,
    },
    /// Chunks that were read and are what the receiver has; no payload.
    Same {
        /// The disk.
        disk: DiskIndex,
        /// The chunks.
        chunks: ChunkRange,
    },
    /// One chunk; `stored_bytes` of payload follow.
    Data {
        /// The disk.
        disk: DiskIndex,
        /// The chunk.
        chunk: ChunkIndex,
        /// BLAKE3 of the chunk's bytes before packing.
        hash: Hash,
        /// The packing of the payload.
        codec: Codec,
        /// Bytes of the payload.
        stored_bytes: u32,
    },
}

impl Frame {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        match self {
            Self::Zeros { disk, chunks } | Self::Same { disk, chunks } => {
                bytes[0] = if matches!(self, Self::Zeros { .. }) {
                    1
                } else {
                    4
                };
                bytes[2..4].copy_from_slice(&disk.0.to_le_bytes());
                bytes[8..16].copy_from_slice(&chunks.first.0.to_le_bytes());
                bytes[16..24].copy_from_slice(&chunks.count.to_le_bytes());
            }
            Self::Unreadable { disk, range } => {
                bytes[0] = 3;
                bytes[2..4].copy_from_slice(&disk.0.to_le_bytes());
                bytes[8..16].copy_from_slice(&range.start.to_le_bytes());
                bytes[16..24].copy_from_slice(&range.end.to_le_bytes());
            }
            Self::Data {
                disk,
                chunk,
                hash,
                codec,
                stored_bytes,
            } => {
                bytes[0] = 2;
                bytes[1] = *codec as u8;
                bytes[2..4].copy_from_slice(&disk.0.to_le_bytes());
                bytes[4..8].copy_from_slice(&stored_bytes.to_le_bytes());
                bytes[8..16].copy_from_slice(&chunk.0.to_le_bytes());
                bytes[24..56].copy_from_slice(hash);
            }
        }
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`DecodeError::Frame`].
    pub fn decode(bytes: &[u8; FRAME_BYTES]) -> Result<Self, DecodeError> {
        let field = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let disk = DiskIndex(u16::from_le_bytes([bytes[2], bytes[3]]));
        match (bytes[0], bytes[1]) {
            (1, 0) => Ok(Self::Zeros {
                disk,
                chunks: ChunkRange::new(field(8), field(16)),
            }),
            (2, codec) if usize::from(codec) < Codec::ALL.len() => {
                let mut hash = [0; 32];
                hash.copy_from_slice(&bytes[24..56]);
                Ok(Self::Data {
                    disk,
                    chunk: ChunkIndex(field(8)),
                    hash,
                    codec: Codec::ALL[usize::from(codec)],
                    stored_bytes: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
                })
            }
            (3, 0) => Ok(Self::Unreadable {
                disk,
                range: ByteRange {
                    start: field(8),
                    end: field(16),
                },
            }),
            (4, 0) => Ok(Self::Same {
                disk,
                chunks: ChunkRange::new(field(8), field(16)),
            }),
            (1..=4, _) => Err(DecodeError::Frame("its codec is unknown")),
            _ => Err(DecodeError::Frame("its kind is unknown")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _any = decode_control::<ToReceiver>(&bytes);
            let _any = decode_control::<ToSender>(&bytes);
            if let Some(header) = bytes.first_chunk::<FRAME_BYTES>()
                && let Ok(frame) = Frame::decode(header)
            {
                prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
            }
        }

        #[test]
        fn what_the_receiver_has_reads_back(
            parts in prop::collection::vec((0_u8..3, 1_u64..40_000), 1..6), unreadable in prop::collection::vec(any::<u64>(), 0..20)
        ) {
            let chunks: u64 = parts.iter().map(|(_, count)| count).sum();
            let mut hashes = ChunkHashes::new(chunks * 8 - 3, 8);
            let mut first = 0;
            for (kind, count) in parts {
                let range = ChunkRange::new(first, count);
                match kind {
                    0 => {}
                    1 => hashes.set_zero(range),
                    _ => range.iter().for_each(|chunk| hashes.set(chunk, Chunk::Data([kind; 32])).unwrap()),
                }
                first += count;
            }
            for chunk in unreadable.into_iter().map(|chunk| chunk % chunks) {
                hashes.add_unreadable(ByteRange { start: chunk * 8, end: chunk * 8 + 4 });
            }
            let mut read = ChunkHashes::new(chunks * 8 - 3, 8);
            let mut next = Some(ChunkIndex(0));
            while let Some(first) = next {
                let (page, after) = Page::of(DiskIndex(0), &mut hashes, first).unwrap();
                let message = encode_control(&ToSender::Present(page));
                prop_assert!(message.len() <= MAX_CONTROL_BYTES);
                let page = match decode_control(&message) {
                    Ok(ToSender::Present(page)) => page,
                    other => panic!("{other:?}"),
                };
                prop_assert!(page.record(&mut read).unwrap());
                prop_assert!(!page.record(&mut ChunkHashes::new(first.offset(8), 8)).unwrap());
                next = after;
            }
            prop_assert_eq!(read.known(), hashes.known());
            prop_assert!(read.runs(read.all()).eq(hashes.runs(hashes.all())));
            prop_assert_eq!(read.unreadable(), hashes.unreadable());
        }
    }

    #[test]
    fn a_changed_header_is_seen() {
        let header = control_header(b"a body");
        let read = decode_control_header(&header);
        assert_eq!(read, Ok((6, crc32fast::hash(b"a body"))));
        for bit in 0..CONTROL_HEADER_BYTES * 8 {
            let mut changed = header;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_control_header(&changed), Err(DecodeError::Changed));
        }
    }

    #[test]
    fn a_hello_of_any_version_says_which() {
        let hello = ToReceiver::Hello {
            version: 300,
            ticket: vec![1],
            disks: Vec::new(),
            transport_reason: String::new(),
        };
        assert_eq!(version_of_hello(&encode_control(&hello)), Some(300));
        let sent = ToReceiver::Sent {
            streams: 1,
            disks: Vec::new(),
        };
        assert_eq!(version_of_hello(&encode_control(&sent)), None);
        assert_eq!(version_of_hello(&[]), None);
    }
}
