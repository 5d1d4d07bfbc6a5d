//! The bodies of a journal's records, as bytes. The format is described in [`super`].

use chunks::hashes::ChunkHashes;
use chunks::{ByteRange, ChunkIndex, ChunkRange, ContentFingerprint};

use super::Written;

/// Entries in a record at most.
pub(super) const RECORD_ENTRIES: usize = 16_384;

/// The body of a record.
pub(super) fn encode(written: &[Written]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in written {
        match entry {
            Written::Zeros(range) => encode_chunks(&mut body, 1, *range),
            Written::Forgotten(range) => encode_chunks(&mut body, 3, *range),
            Written::Same(range) => encode_chunks(&mut body, 7, *range),
            Written::Fingerprint(fingerprint) => {
                body.push(6);
                body.extend(fingerprint.map_or([0; 32], |fingerprint| fingerprint.0));
            }
            Written::Data { chunk, hash } => {
                body.push(2);
                body.extend(chunk.0.to_le_bytes());
                body.extend(hash);
            }
            Written::Unreadable(range) => {
                encode_range(&mut body, 5, range.start, range.bytes());
            }
        }
    }
    body
}

/// Splits entries into records. A chunk and its unreadable ranges are never in two: a crash between them would leave
/// zeros that pass for the source's bytes.
pub(super) fn records(mut written: &[Written]) -> impl Iterator<Item = &[Written]> {
    std::iter::from_fn(move || {
        let mut end = written.len().min(RECORD_ENTRIES);
        while matches!(written.get(end), Some(Written::Unreadable(_))) {
            end += 1;
        }
        let (record, rest) = written.split_at(end);
        written = rest;
        (!record.is_empty()).then_some(record)
    })
}

fn encode_chunks(body: &mut Vec<u8>, kind: u8, range: ChunkRange) {
    encode_range(body, kind, range.first.0, range.count);
}

/// A count fits 32 bits up to 4 PiB; longer ranges are split.
fn encode_range(body: &mut Vec<u8>, kind: u8, mut start: u64, mut left: u64) {
    while left > 0 {
        let piece = u32::try_from(left).unwrap_or(u32::MAX);
        body.push(kind);
        body.extend(start.to_le_bytes());
        body.extend(piece.to_le_bytes());
        start += u64::from(piece);
        left -= u64::from(piece);
    }
}

/// The entries of a body; `None` if it is none of ours, or of another disk.
pub(super) fn decode(mut body: &[u8], hashes: &ChunkHashes) -> Option<Vec<Written>> {
    let mut entries = Vec::new();
    while let Some((&kind, rest)) = body.split_first() {
        if kind == 6 {
            let (fingerprint, rest) = rest.split_first_chunk::<32>()?;
            let fingerprint = (*fingerprint != [0; 32]).then_some(ContentFingerprint(*fingerprint));
            entries.push(Written::Fingerprint(fingerprint));
            body = rest;
            continue;
        }
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        let (entry, range, rest): (_, ChunkRange, _) = match kind {
            5 => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let end = first.checked_add(u64::from(u32::from_le_bytes(*length)))?;
                if end > hashes.size_bytes() {
                    return None;
                }
                entries.push(Written::Unreadable(ByteRange { start: first, end }));
                body = rest;
                continue;
            }
            1 | 3 | 7 => {
                let (count, rest) = rest.split_first_chunk::<4>()?;
                let range = ChunkRange::new(first, u64::from(u32::from_le_bytes(*count)));
                let entry = match kind {
                    1 => Written::Zeros(range),
                    3 => Written::Forgotten(range),
                    _ => Written::Same(range),
                };
                (entry, range, rest)
            }
            2 => {
                let (hash, rest) = rest.split_first_chunk::<32>()?;
                let chunk = ChunkIndex(first);
                let entry = Written::Data { chunk, hash: *hash };
                (entry, chunk.into(), rest)
            }
            _ => return None,
        };
        if !range.fits(hashes.chunks()) {
            return None;
        }
        entries.push(entry);
        body = rest;
    }
    Some(entries)
}
