//! The loops that touch every byte or every chunk: `cargo bench -p transfer`.

use std::hint::black_box;

use chunks::hashes::{hash, is_zero};
use chunks::packing::Codec;
use chunks::{ByteRange, CHUNK_BYTES};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use domain::disk::DiskIndex;
use transfer::plan::claims;
use transfer::protocol::{FRAME_BYTES, Frame};

const CHUNK: usize = CHUNK_BYTES as usize;

/// A chunk that compresses about as files of a server do: words and noise in turn.
fn mixed() -> Vec<u8> {
    let mut bytes = noise();
    for piece in bytes.chunks_mut(4096).step_by(2) {
        let words = b"a server's disk is half words, half what is packed already. "
            .iter()
            .cycle();
        piece
            .iter_mut()
            .zip(words)
            .for_each(|(byte, word)| *byte = *word);
    }
    bytes
}

fn noise() -> Vec<u8> {
    let mut bytes = vec![0; CHUNK];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn chunks(criterion: &mut Criterion) {
    let (zeros, noise, mixed) = (vec![0; CHUNK], noise(), mixed());
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    group.bench_function("zero test of zeros", |bench| {
        bench.iter(|| is_zero(black_box(&zeros)));
    });
    group.bench_function("hash", |bench| bench.iter(|| hash(black_box(&noise))));
    for level in [1, 3] {
        let mut compressor = zstd::bulk::Compressor::new(level).expect("a level that zstd has");
        let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK));
        for (name, bytes) in [("noise", &noise), ("mixed", &mixed)] {
            group.bench_function(format!("compress {name} at level {level}"), |bench| {
                bench.iter(|| {
                    packed.clear();
                    compressor.compress_to_buffer(black_box(bytes.as_slice()), &mut packed)
                });
            });
        }
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let frame = Frame::Data {
        disk: DiskIndex(0),
        chunk: chunks::ChunkIndex(7),
        hash: [3; 32],
        codec: Codec::Zstd,
        stored_bytes: 4096,
    };
    criterion.bench_function("frame there and back", |bench| {
        bench.iter(|| {
            let bytes: [u8; FRAME_BYTES] = black_box(&frame).encode();
            Frame::decode(black_box(&bytes))
        });
    });
}

fn plans(criterion: &mut Criterion) {
    let extents: Vec<ByteRange> = (0..100_000)
        .map(|number| ByteRange {
            start: number * (3 << 20),
            end: number * (3 << 20) + (1 << 20) + 4096,
        })
        .collect();
    criterion.bench_function("plan of 300 GiB in 100,000 extents", |bench| {
        bench.iter(|| claims(0, 300 << 30, CHUNK_BYTES, black_box(&extents)));
    });
}

criterion_group!(loops, chunks, frames, plans);
criterion_main!(loops);
