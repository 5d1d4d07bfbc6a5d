//! Packing chunks with zstd, and unpacking them.
//!
//! The packed chunks of a data stream are one zstd stream, flushed behind each: neighbours have much in common, and a
//! chunk that may refer to those before it takes 5 to 8 % less than one by itself. Where the thread breaks (another
//! level, a chunk that does not pack), the next packed chunk begins a stream anew, and its frame says so. Both sides
//! hold a window of 4 MiB for each data stream, and no more.

use bytes::Bytes;
use std::time::Instant;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name,
};

/// The distance that a chunk may refer back, as a power of two in bytes. Twice as much saves another 0.2 %.
const WINDOW_LOG: u32 = 22;

/// From this level on zstd's tables grow up to 80 MiB for each data stream. With so many entries they find nearly as
/// much in a window of this size: it costs 1 to 2 %, takes 10 MiB at most, window included, and is faster.
const LARGE_TABLES: i32 = 9;
const TABLE_LOG: u32 = 19;

/// A packed chunk must save this part of itself to be sent packed.
const LEAST_GAIN: usize = 100 / 3;

/// The packing of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// The beginning of a zstd stream, up to a flush.
    Zstd,
    /// The same stream, from the packed chunk before on this data stream up to a flush.
    ZstdContinued,
}

impl Codec {
    /// By what stands in the header.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Zstd, Self::ZstdContinued];
}

/// Packs the chunks of one data stream, in their order.
pub struct Packer {
    context: CCtx<'static>,
    /// The buffer for its output. A chunk on its way takes no more memory than it is long.
    packed: Vec<u8>,
    /// Of the stream that the last chunk was packed into, if it goes on.
    continues: Option<i32>,
}

impl Packer {
    /// Packs a chunk at a level from 1 to 19; `None` if that does not pay.
    pub fn pack(&mut self, bytes: &[u8], level: i32) -> Option<(Codec, Bytes)> {
        let continues = self.continues.take() == Some(level);
        if !continues {
            self.begin(level)?;
        }
        // With no room for more, zstd gives up on what does not pay.
        let room = bytes.len() - bytes.len() / LEAST_GAIN;
        self.packed.resize(room, 0);
        let mut output = OutBuffer::around(&mut self.packed[..]);
        let mut input = InBuffer::around(bytes);
        let flush = ZSTD_EndDirective::ZSTD_e_flush;
        while self
            .context
            .compress_stream2(&mut output, &mut input, flush)
            .ok()?
            > 0
        {
            if output.pos() == room {
                return None;
            }
        }
        let packed = Bytes::copy_from_slice(output.as_slice());
        self.continues = Some(level);
        let codec = if continues {
            Codec::ZstdContinued
        } else {
            Codec::Zstd
        };
        Some((codec, packed))
    }

    /// Measures packing of some bytes at the lowest level. The next chunk begins a stream.
    pub fn sample(&mut self, bytes: &[u8]) -> Option<Sample> {
        self.continues = None;
        let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(bytes.len()));
        let began = Instant::now();
        let length = self.context.compress(&mut packed, bytes, 1).ok()?;
        let took = began.elapsed().as_secs_f64();
        let bytes = bytes.len() as f64;
        Some(Sample {
            packs_to: length as f64 / bytes,
            secs_per_byte: took / bytes,
        })
    }

    fn begin(&mut self, level: i32) -> Option<()> {
        let context = &mut self.context;
        context.reset(ResetDirective::SessionOnly).ok()?;
        let table_log = if level < LARGE_TABLES { 0 } else { TABLE_LOG };
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(WINDOW_LOG),
            // Zero leaves the level's own.
            CParameter::HashLog(table_log),
            CParameter::ChainLog(table_log),
        ] {
            context.set_parameter(parameter).ok()?;
        }
        Some(())
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            context: CCtx::create(),
            packed: Vec::new(),
            continues: None,
        }
    }
}

/// The beginning of a chunk, packed at the lowest level for the sake of knowledge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The part of itself that it packs to.
    pub packs_to: f64,
    /// Time that one processor takes to pack a byte.
    pub secs_per_byte: f64,
}

/// Unpacks the chunks of one data stream, in their order.
pub struct Unpacker(DCtx<'static>);

impl Unpacker {
    /// Unpacks a chunk; `room` is as long as a chunk can be.
    ///
    /// # Errors
    /// The fault of the payload. Nothing that follows it on its data stream can be unpacked.
    pub fn unpack<'a>(
        &mut self,
        codec: Codec,
        payload: &'a [u8],
        room: &'a mut [u8],
    ) -> Result<&'a [u8], &'static str> {
        match codec {
            Codec::Raw => return Ok(payload),
            Codec::Zstd => {
                let reset = self.0.reset(ResetDirective::SessionOnly);
                reset.map_err(get_error_name)?;
            }
            Codec::ZstdContinued => {}
        }
        let most = room.len();
        let mut output = OutBuffer::around(room);
        let mut input = InBuffer::around(payload);
        while input.pos() < payload.len() {
            if output.pos() == most {
                return Err("it is longer than a chunk");
            }
            let unpacked = self.0.decompress_stream(&mut output, &mut input);
            unpacked.map_err(get_error_name)?;
        }
        let length = output.pos();
        Ok(&room[..length])
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .expect("zstd has a window of this size");
        Self(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: usize = 64 << 10;

    fn noise(seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; CHUNK];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(seed: u8) -> Vec<u8> {
        let words = format!("{seed} of the words of which a server's disk is full; ");
        words.bytes().cycle().take(CHUNK).collect()
    }

    /// The chunks as they cross the wire.
    fn pack(chunks: &[(Vec<u8>, i32)]) -> Vec<(Codec, Bytes)> {
        let mut packer = Packer::default();
        let packed = chunks.iter().map(|(bytes, level)| {
            let packed = packer.pack(bytes, *level);
            packed.unwrap_or_else(|| (Codec::Raw, Bytes::from(bytes.clone())))
        });
        packed.collect()
    }

    #[test]
    fn a_chunk_refers_to_those_before_it_and_one_that_does_not_pack_breaks_the_thread() {
        let half = noise(1)[..CHUNK / 2].repeat(2);
        let packed = pack(&[
            (half.clone(), 3),
            (half.clone(), 3),
            (noise(2), 3),
            (half.clone(), 3),
            (half.clone(), 6),
            (half, 6),
        ]);
        let codecs: Vec<Codec> = packed.iter().map(|(codec, _)| *codec).collect();
        assert_eq!(
            codecs,
            [
                Codec::Zstd,
                Codec::ZstdContinued,
                Codec::Raw,
                Codec::Zstd,
                Codec::Zstd,
                Codec::ZstdContinued
            ]
        );
        let lengths: Vec<usize> = packed.iter().map(|(_, payload)| payload.len()).collect();
        assert!(
            lengths[0] > CHUNK / 2 && lengths[1] < CHUNK / 100,
            "{lengths:?}"
        );
        assert!(
            lengths[4] > CHUNK / 2 && lengths[5] < CHUNK / 100,
            "{lengths:?}"
        );
    }

    #[test]
    fn a_payload_of_more_than_a_chunk_is_refused_and_takes_no_memory() {
        let bomb = zstd::bulk::compress(&vec![7; 16 << 20], 1).unwrap();
        let mut room = vec![0; CHUNK];
        let unpacked = Unpacker::default().unpack(Codec::Zstd, &bomb, &mut room);
        assert_eq!(unpacked, Err("it is longer than a chunk"));
        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        let wide = {
            std::io::Write::write_all(&mut wide, &noise(1)).unwrap();
            wide.finish().unwrap()
        };
        let unpacked = Unpacker::default().unpack(Codec::Zstd, &wide, &mut room);
        assert_eq!(unpacked, Err("Frame requires too much memory for decoding"));
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in(
            kinds in proptest::collection::vec((any::<bool>(), 0_u8..4, 1_i32..10, 1..=CHUNK), 1..24),
        ) {
            let chunks: Vec<(Vec<u8>, i32)> = kinds
                .into_iter()
                .map(|(is_text, seed, level, length)| {
                    let mut bytes = if is_text { text(seed) } else { noise(seed) };
                    bytes.truncate(length);
                    (bytes, level)
                })
                .collect();
            let mut unpacker = Unpacker::default();
            let mut room = vec![0; CHUNK];
            for ((bytes, _), (codec, payload)) in chunks.iter().zip(pack(&chunks)) {
                prop_assert!(payload.len() <= bytes.len());
                prop_assert_eq!(unpacker.unpack(codec, &payload, &mut room), Ok(&bytes[..]));
            }
        }

        #[test]
        fn no_payload_makes_it_panic(
            payloads in proptest::collection::vec((0..3_usize, proptest::collection::vec(any::<u8>(), 0..300)), 1..8),
        ) {
            let mut unpacker = Unpacker::default();
            let mut room = vec![0; CHUNK];
            for (codec, payload) in payloads {
                let codec = [Codec::Raw, Codec::Zstd, Codec::ZstdContinued][codec];
                let _any = unpacker.unpack(codec, &payload, &mut room);
            }
        }
    }
}
