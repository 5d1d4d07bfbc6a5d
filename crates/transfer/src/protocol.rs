//! What crosses the wire. Encoding and decoding only: no sockets, no files, and no input that can make them panic.
//!
//! One bidirectional *control* stream carries length-prefixed messages: the sender's [`ToReceiver`], the receiver's [`ToSender`]. Any number of
//! unidirectional *data* streams carry frames: a [`Frame`] header of fixed length, and behind a data frame its payload.

use domain::disk::DiskIndex;
use serde::{Deserialize, Serialize};

use crate::error::RemoteFailure;
use crate::hashes::{Chunk, ChunkHashes, Hash, RunKind};

/// Version of the protocol. Both sides must speak the same.
pub const VERSION: u16 = 1;

/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"wherry/1";

/// Longest control message: the hashes of 2^21 chunks, 2 TiB, fit one.
pub const MAX_CONTROL_BYTES: usize = 96 << 20;

/// Bytes of a frame's header.
pub const FRAME_BYTES: usize = 56;

/// From the sender, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReceiver {
    /// The first message.
    Hello {
        /// See [`VERSION`].
        version: u16,
        /// The ticket as it was assigned.
        ticket: Vec<u8>,
        /// The disks that will be sent.
        disks: Vec<OfferedDisk>,
    },
    /// Every data stream is finished.
    Sent {
        /// How many data streams there were.
        streams: u32,
        /// The root of each disk.
        roots: Vec<(DiskIndex, Hash)>,
    },
}

/// A disk that the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedDisk {
    /// Which disk.
    pub index: DiskIndex,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// From the receiver, on the control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToSender {
    /// The answer to Hello: what is durably here.
    Welcome {
        /// See [`VERSION`].
        version: u16,
        /// Bytes of a chunk.
        chunk_bytes: u32,
        /// What the receiver has of each disk, in the order of the offer.
        disks: Vec<Present>,
    },
    /// So many bytes of the disk are durable now.
    Durable {
        /// Which disk.
        index: DiskIndex,
        /// Bytes of its known chunks.
        bytes: u64,
    },
    /// Every disk is complete and its root is the sender's.
    Received,
    /// The transfer is over.
    Refused(RemoteFailure),
}

/// What the receiver has of a disk, as stretches from the first chunk to the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present(Vec<Stretch>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Stretch {
    Unknown(u64),
    Zeros(u64),
    Data(Vec<Hash>),
}

/// What came over the wire can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A control message is not one.
    #[error("a control message is malformed: {0}")]
    Control(String),
    /// A control message is longer than [`MAX_CONTROL_BYTES`].
    #[error("a control message of {0} bytes is too long")]
    TooLong(usize),
    /// A frame's header is not one.
    #[error("a frame is malformed: {0}")]
    Frame(&'static str),
}

impl Present {
    /// What is known of a disk.
    pub fn of(hashes: &ChunkHashes) -> Self {
        let data = |start: u64, count: u64| {
            (start..start + count).filter_map(|chunk| match hashes.get(chunk) {
                Chunk::Data(hash) => Some(hash),
                Chunk::Zero | Chunk::Unknown => None,
            })
        };
        Self(
            hashes
                .runs()
                .into_iter()
                .map(|run| match run.kind {
                    RunKind::Unknown => Stretch::Unknown(run.count),
                    RunKind::Zero => Stretch::Zeros(run.count),
                    RunKind::Data => Stretch::Data(data(run.start, run.count).collect()),
                })
                .collect(),
        )
    }

    /// The same for a disk of this size; `None` if it does not fit one.
    pub fn hashes(&self, size_bytes: u64, chunk_bytes: u32) -> Option<ChunkHashes> {
        if chunk_bytes == 0 {
            return None;
        }
        let mut hashes = ChunkHashes::new(size_bytes, chunk_bytes);
        let mut chunk = 0_u64;
        for stretch in &self.0 {
            let count = match stretch {
                Stretch::Unknown(count) | Stretch::Zeros(count) => *count,
                Stretch::Data(list) => list.len() as u64,
            };
            let end = chunk
                .checked_add(count)
                .filter(|end| *end <= hashes.chunks())?;
            match stretch {
                Stretch::Unknown(_) => {}
                Stretch::Zeros(count) => hashes.set_zero(chunk, *count),
                Stretch::Data(list) => {
                    for (hash, chunk) in list.iter().zip(chunk..) {
                        hashes.set(chunk, Chunk::Data(*hash));
                    }
                }
            }
            chunk = end;
        }
        (chunk == hashes.chunks()).then_some(hashes)
    }
}

/// Encodes a control message with its length in front.
pub fn encode_control(message: &impl Serialize) -> Vec<u8> {
    let body =
        postcard::to_stdvec(message).expect("control messages hold nothing that has no encoding");
    let mut bytes = u32::try_from(body.len())
        .expect("a control message is far below 4 GiB")
        .to_le_bytes()
        .to_vec();
    bytes.extend(body);
    bytes
}

/// Decodes a control message's body.
///
/// # Errors
/// [`DecodeError::Control`].
pub fn decode_control<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    postcard::from_bytes(body).map_err(|error| DecodeError::Control(error.to_string()))
}

/// How a payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// The header of a frame on a data stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A stretch of zeros; no payload.
    Zeros {
        /// Which disk.
        disk: DiskIndex,
        /// The first chunk.
        start: u64,
        /// How many.
        count: u64,
    },
    /// One chunk; `stored_bytes` of payload follow.
    Data {
        /// Which disk.
        disk: DiskIndex,
        /// Which chunk.
        chunk: u64,
        /// BLAKE3 of the chunk's bytes before packing.
        hash: Hash,
        /// How the payload is packed.
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
            Self::Zeros { disk, start, count } => {
                bytes[0] = 1;
                bytes[2..4].copy_from_slice(&disk.0.to_le_bytes());
                bytes[8..16].copy_from_slice(&start.to_le_bytes());
                bytes[16..24].copy_from_slice(&count.to_le_bytes());
            }
            Self::Data {
                disk,
                chunk,
                hash,
                codec,
                stored_bytes,
            } => {
                bytes[0] = 2;
                bytes[1] = u8::from(*codec == Codec::Zstd);
                bytes[2..4].copy_from_slice(&disk.0.to_le_bytes());
                bytes[4..8].copy_from_slice(&stored_bytes.to_le_bytes());
                bytes[8..16].copy_from_slice(&chunk.to_le_bytes());
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
                start: field(8),
                count: field(16),
            }),
            (2, codec @ (0 | 1)) => {
                let mut hash = [0; 32];
                hash.copy_from_slice(&bytes[24..56]);
                Ok(Self::Data {
                    disk,
                    chunk: field(8),
                    hash,
                    codec: if codec == 1 { Codec::Zstd } else { Codec::Raw },
                    stored_bytes: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
                })
            }
            (1 | 2, _) => Err(DecodeError::Frame("its codec is unknown")),
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
            if let Some(header) = bytes.first_chunk::<FRAME_BYTES>() {
                if let Ok(frame) = Frame::decode(header) {
                    prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
                }
            }
        }

        #[test]
        fn what_the_receiver_has_reads_back(known in proptest::collection::vec(0_u8..3, 1..2500)) {
            let mut hashes = ChunkHashes::new(known.len() as u64 * 8 - 3, 8);
            for (chunk, kind) in (0..).zip(&known) {
                match kind {
                    0 => {}
                    1 => hashes.set(chunk, Chunk::Zero),
                    _ => hashes.set(chunk, Chunk::Data([*kind; 32])),
                }
            }
            let present = Present::of(&hashes);
            let read = present.hashes(hashes.size_bytes(), 8).unwrap();
            prop_assert_eq!(read.known(), hashes.known());
            for chunk in 0..hashes.chunks() {
                prop_assert_eq!(read.get(chunk), hashes.get(chunk));
            }
            prop_assert!(present.hashes(hashes.size_bytes() + 8, 8).is_none());
        }
    }
}
