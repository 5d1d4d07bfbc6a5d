//! The plan of a seed: disks, a network, and what goes wrong when.

use std::ops::Range;
use std::time::Duration;

use chunks::ByteRange;
use chunks::hashes::is_zero;
use domain::parameters::{BadSectors, Consistency};

use super::Random;
use super::network::Shape;
use super::world::SECTOR;
use crate::disk::volatile_storage::Writing;

/// Bytes of a chunk in the simulation: small, so that many fit in little time.
pub(super) const CHUNK: u32 = 16 << 10;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) disks: Vec<Vec<u8>>,
    /// The unreadable ranges of each disk. Each is in one chunk, and none is in a sector with another.
    pub(super) unreadable: Vec<Vec<Range<u64>>>,
    pub(super) bad_sectors: BadSectors,
    pub(super) consistency: Consistency,
    pub(super) shape: Shape,
    pub(super) streams: usize,
    pub(super) flush_bytes: u64,
    pub(super) packs: bool,
    pub(super) checksum: bool,
    pub(super) limit: Option<u64>,
    /// True if the source can tell that nothing was written.
    pub(super) is_tracked: bool,
    /// In order, each with the pause after the one before.
    pub(super) faults: Vec<(Duration, Fault)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// All connections are reset.
    Cut,
    /// The connection is reset after so many bytes more.
    CutAfter(usize),
    /// One data stream breaks after so many bytes more.
    TearStream(usize),
    /// Nothing gets through for so long.
    Partition(Duration),
    /// The receiver's process ends, or its machine does and with it what was not synced; after so long it is there
    /// again, for the same epoch or a newer one.
    ReceiverDies {
        silently: bool,
        power_fails: bool,
        back_after: Duration,
        is_new_epoch: bool,
    },
    /// The agent's process ends and is started again.
    SenderDies {
        silently: bool,
        back_after: Duration,
    },
    /// A second agent begins while the first one sends, and the first one goes after so long.
    SecondSender {
        first_goes_after: Duration,
    },
    /// A newer owner of the run.
    NewEpoch,
    Limit(Option<u64>),
    /// A bit of a data stream is flipped after so many bytes more.
    Flip(usize),
    /// A bit of what the two say to each other is flipped after so many bytes more.
    FlipControl(usize),
    /// The next sync of a disk or of a map fails.
    SyncFails {
        disk: usize,
        in_map: bool,
    },
    /// The next write of a disk or of a map fails.
    WriteFails {
        disk: usize,
        in_map: bool,
        how: Writing,
    },
    /// The next reads of the source fail, fewer than anybody gives up after.
    ReadsFail {
        disk: usize,
        count: u64,
    },
    /// The source gives no more at once.
    ShortReads {
        disk: usize,
        most_bytes: usize,
    },
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disks: Vec<Vec<u8>> = (0..random.between(1, 3))
            .map(|_| disk(&mut random))
            .collect();
        let bytes: u64 = disks.iter().map(|disk| disk.len() as u64).sum();
        // A transfer of some seconds to a minute, so that faults find it at work.
        let bytes_per_sec = bytes / random.between(2, 40) + 20_000;
        let shape = Shape {
            latency: random.up_to(Duration::from_millis(120)),
            bytes_per_sec,
            window: usize::try_from(random.between(16 << 10, 256 << 10)).unwrap(),
        };
        let faults = (0..random.below(7))
            .map(|_| {
                let pause = random.up_to(Duration::from_secs(20));
                let fault = Fault::draw(&mut random, bytes, disks.len() as u64);
                (pause, fault)
            })
            .collect();
        let unreadable = disks
            .iter()
            .map(|disk| unreadable(&mut random, disk.len() as u64))
            .collect();
        Self {
            seed,
            unreadable,
            bad_sectors: BadSectors::Zero,
            consistency: Consistency::Crash,
            shape,
            streams: usize::try_from(random.between(1, 4)).unwrap(),
            flush_bytes: random.between(u64::from(CHUNK), 16 * u64::from(CHUNK)),
            packs: random.below(2) == 0,
            checksum: random.below(2) == 0,
            limit: (random.below(4) == 0).then(|| random.between(30_000, 300_000)),
            is_tracked: random.below(2) == 0,
            disks,
            faults,
        }
    }
}

impl Plan {
    /// The sectors that a disk has lost. Holes are not read, and so not missed.
    pub(super) fn unreadable_sectors(&self, disk: usize) -> Vec<ByteRange> {
        let content = &self.disks[disk];
        let is_hole = |range: &&Range<u64>| {
            let chunk = usize::try_from(range.start).unwrap() / CHUNK as usize;
            let mut chunks = content.chunks(CHUNK as usize);
            chunks.nth(chunk).is_none_or(is_zero)
        };
        let read = self.unreadable[disk].iter().filter(|range| !is_hole(range));
        let sectors = read.map(|range| ByteRange {
            start: range.start / SECTOR * SECTOR,
            end: range.end.next_multiple_of(SECTOR).min(content.len() as u64),
        });
        sectors.collect()
    }

    /// Returns the content of a disk as it arrives: zeros where it can't be read.
    pub(super) fn arriving(&self, disk: usize) -> Vec<u8> {
        let mut bytes = self.disks[disk].clone();
        for range in self.unreadable_sectors(disk) {
            let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
            bytes[start.unwrap()..end.unwrap()].fill(0);
        }
        bytes
    }
}

impl Fault {
    fn draw(random: &mut Random, bytes: u64, disks: u64) -> Self {
        let offset = |random: &mut Random| usize::try_from(random.below(bytes)).unwrap();
        let is_so = |random: &mut Random| random.below(2) == 0;
        let back_after = |random: &mut Random| random.up_to(Duration::from_secs(30));
        let disk = |random: &mut Random| usize::try_from(random.below(disks)).unwrap();
        match random.below(17) {
            0 => Self::Cut,
            1 => Self::CutAfter(offset(random)),
            2 => Self::Partition(Duration::from_secs(600)),
            3 => Self::Partition(random.up_to(Duration::from_secs(40))),
            4 | 5 => Self::ReceiverDies {
                silently: is_so(random),
                power_fails: is_so(random),
                back_after: back_after(random),
                is_new_epoch: is_so(random),
            },
            6 => Self::SenderDies {
                silently: is_so(random),
                back_after: back_after(random),
            },
            7 => Self::SecondSender {
                first_goes_after: random.up_to(Duration::from_secs(2)),
            },
            8 => Self::NewEpoch,
            9 => Self::Limit(is_so(random).then(|| random.between(30_000, 2_000_000))),
            10 => Self::Flip(offset(random)),
            11 => Self::TearStream(offset(random)),
            12 => Self::SyncFails {
                disk: disk(random),
                in_map: is_so(random),
            },
            13 => Self::WriteFails {
                disk: disk(random),
                in_map: is_so(random),
                how: if is_so(random) {
                    Writing::Full
                } else {
                    Writing::Short
                },
            },
            14 => Self::ReadsFail {
                disk: disk(random),
                count: random.between(1, 2),
            },
            15 => Self::FlipControl(usize::try_from(random.below(2000)).unwrap()),
            _ => Self::ShortReads {
                disk: disk(random),
                most_bytes: usize::try_from(random.between(1, 2 * u64::from(CHUNK))).unwrap(),
            },
        }
    }

    /// Returns true if bytes that were received may have to be sent again.
    pub(super) fn loses_writes(&self) -> bool {
        matches!(
            self,
            Self::ReceiverDies { .. } | Self::SyncFails { .. } | Self::WriteFails { .. }
        )
    }
}

/// Mostly nothing; else a few bytes here and there, and perhaps a whole chunk.
fn unreadable(random: &mut Random, size: u64) -> Vec<Range<u64>> {
    let chunk = u64::from(CHUNK);
    let mut ranges = Vec::new();
    if random.below(4) > 0 {
        return ranges;
    }
    for number in 0..random.between(1, 4) {
        // At most one in each chunk, and so none next to another.
        let first = number * 3 * chunk;
        let (start, length) = if random.below(3) == 0 {
            (first, chunk)
        } else {
            let start = first + random.below(chunk / 2);
            (start, random.between(1, 2 * SECTOR))
        };
        if start + length <= size {
            ranges.push(start..start + length);
        }
    }
    ranges
}

/// A disk of zeros, noise and text, whose last chunk may be short.
fn disk(random: &mut Random) -> Vec<u8> {
    let chunk = CHUNK as usize;
    let mut bytes = Vec::new();
    for _ in 0..random.between(1, 12) {
        let length = usize::try_from(random.between(1, 8)).unwrap() * chunk;
        match random.below(4) {
            0 => bytes.resize(bytes.len() + length, 0),
            1 => {
                let word = random.next().to_le_bytes();
                bytes.extend(word.iter().cycle().take(length));
            }
            _ => bytes.extend((0..length / 8).flat_map(|_| random.next().to_le_bytes())),
        }
    }
    let short = usize::try_from(random.below(u64::from(CHUNK))).unwrap();
    bytes.truncate(bytes.len() - short);
    bytes
}
