//! The bodies of a journal's records, as bytes. The format is described in [`super`].

use chunks::hashes::ChunkHashes;
use chunks::{Extent, Version};

use super::Written;

/// Entries in a record at most.
pub(super) const RECORD_ENTRIES: usize = 16_384;

/// The body of a record.
pub(super) fn encode(written: &[Written]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in written {
        match entry {
            Written::Zeros { start, count } => encode_stretch(&mut body, 1, *start, *count),
            Written::Forgotten { start, count } => encode_stretch(&mut body, 3, *start, *count),
            Written::Same { start, count } => encode_stretch(&mut body, 7, *start, *count),
            Written::Version(version) => {
                body.push(6);
                body.extend(version.map_or([0; 32], |version| version.0));
            }
            Written::Data { chunk, hash } => {
                body.push(2);
                body.extend(chunk.to_le_bytes());
                body.extend(hash);
            }
            Written::Bad(range) => {
                encode_stretch(&mut body, 5, range.start, range.end - range.start);
            }
        }
    }
    body
}

/// What goes into one record each. A chunk and what is bad of it are never in two: a crash between them would leave zeros that pass for the source's bytes.
pub(super) fn records(mut written: &[Written]) -> impl Iterator<Item = &[Written]> {
    std::iter::from_fn(move || {
        let mut end = written.len().min(RECORD_ENTRIES);
        while matches!(written.get(end), Some(Written::Bad(_))) {
            end += 1;
        }
        let (record, rest) = written.split_at(end);
        written = rest;
        (!record.is_empty()).then_some(record)
    })
}

/// A count fits 32 bits up to 4 PiB; longer stretches are split.
fn encode_stretch(body: &mut Vec<u8>, kind: u8, mut start: u64, mut left: u64) {
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
            let (version, rest) = rest.split_first_chunk::<32>()?;
            let version = (*version != [0; 32]).then_some(Version(*version));
            entries.push(Written::Version(version));
            body = rest;
            continue;
        }
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        let (entry, count, rest) = match kind {
            5 => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let end = first.checked_add(u64::from(u32::from_le_bytes(*length)))?;
                if end > hashes.size_bytes() {
                    return None;
                }
                entries.push(Written::Bad(Extent { start: first, end }));
                body = rest;
                continue;
            }
            1 | 3 | 7 => {
                let (count, rest) = rest.split_first_chunk::<4>()?;
                let count = u64::from(u32::from_le_bytes(*count));
                let start = first;
                let entry = match kind {
                    1 => Written::Zeros { start, count },
                    3 => Written::Forgotten { start, count },
                    _ => Written::Same { start, count },
                };
                (entry, count, rest)
            }
            2 => {
                let (hash, rest) = rest.split_first_chunk::<32>()?;
                let entry = Written::Data {
                    chunk: first,
                    hash: *hash,
                };
                (entry, 1, rest)
            }
            _ => return None,
        };
        if first.checked_add(count)? > hashes.chunks() {
            return None;
        }
        entries.push(entry);
        body = rest;
    }
    Some(entries)
}
