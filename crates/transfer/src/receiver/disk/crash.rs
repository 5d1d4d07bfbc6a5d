//! The crash argument, tested: a disk and its map on storage that loses, keeps or tears at random what was not synced.

use std::path::Path;

use chunks::hashes::{Chunk, ChunkHashes, hash, length_of};
use chunks::{ByteRange, ChunkIndex, ChunkRange};
use domain::disk::{DiskIndex, Moment};
use proptest::prelude::*;

use super::super::TargetDisk;
use super::{Arriving, JournaledDisk};
use crate::chunk_map::ChunkMap;
use crate::disk::TargetWriter;
use crate::disk::volatile_storage::{Medium, Sync};
use crate::protocol::SentDisk;

const CHUNK: u32 = 16;
const CHUNKS: u64 = 12;
const ALL: ChunkRange = ChunkRange::new(0, CHUNKS);
/// The last chunk is short.
const SIZE: u64 = CHUNKS * 16 - 5;

#[derive(Debug, Clone)]
enum Step {
    /// A chunk of this content, of which the source could read all or not.
    Data(ChunkIndex, u8, bool),
    Zeros(ChunkRange),
    Flush,
    FailingFlush {
        in_map: bool,
    },
    Crash(Vec<u8>, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let fates = || prop::collection::vec(any::<u8>(), 1..8);
    prop_oneof![
        6 => (0..CHUNKS, 0_u8..5, any::<bool>()).prop_map(|(chunk, content, is_unreadable)| Step::Data(ChunkIndex(chunk), content, is_unreadable)),
        2 => (0..CHUNKS, 1..4_u64).prop_map(|(start, count)| Step::Zeros(ChunkRange::new(start, count).intersection(ALL))),
        3 => Just(Step::Flush),
        1 => any::<bool>().prop_map(|in_map| Step::FailingFlush { in_map }),
        2 => (fates(), fates()).prop_map(|(disk, map)| Step::Crash(disk, map)),
    ]
}

/// A receiver of one disk that falls and comes back.
struct World {
    disk_medium: Medium,
    map_medium: Medium,
    disk: JournaledDisk,
    /// Chunks that were written since the last flush; no connection writes one twice, and a new connection begins with
    /// a flush.
    dirty: Vec<ChunkIndex>,
    /// Chunks that a flush has said are durable, and that nobody has begun to overwrite.
    promised: Vec<Chunk>,
    /// True for each chunk whose last write had unreadable ranges.
    unreadable: Vec<bool>,
}

fn open(disk_medium: &Medium, map_medium: &Medium) -> JournaledDisk {
    let spec = TargetDisk {
        index: DiskIndex(0),
        source_bytes: SIZE,
        target_bytes: SIZE,
    };
    let disk = disk_medium.open();
    disk.set_length(SIZE).unwrap();
    let writer = TargetWriter::on(Path::new("disk"), disk);
    let nothing = ChunkHashes::new(SIZE, CHUNK);
    let opened = ChunkMap::on(Path::new("map"), map_medium.open(), nothing).unwrap();
    JournaledDisk::new(spec, CHUNK, writer, opened).unwrap()
}

/// Returns the range of a chunk that the source can't read, where it can't.
fn lost(chunk: ChunkIndex) -> ByteRange {
    ByteRange {
        start: chunk.offset(CHUNK) + 1,
        end: chunk.offset(CHUNK) + 3,
    }
}

fn content(chunk: ChunkIndex, byte: u8) -> Vec<u8> {
    vec![byte; length_of(SIZE, CHUNK, chunk) as usize]
}

fn index(chunk: ChunkIndex) -> usize {
    usize::try_from(chunk.0).unwrap()
}

impl World {
    fn new() -> Self {
        let (disk_medium, map_medium) = (Medium::default(), Medium::default());
        let disk = open(&disk_medium, &map_medium);
        Self {
            disk_medium,
            map_medium,
            disk,
            dirty: Vec::new(),
            promised: vec![Chunk::Unknown; CHUNKS as usize],
            unreadable: vec![false; CHUNKS as usize],
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Data(chunk, byte, is_unreadable) => {
                self.before_writing((*chunk).into());
                let unreadable: Vec<ByteRange> =
                    is_unreadable.then(|| lost(*chunk)).into_iter().collect();
                let bytes = content(*chunk, *byte);
                let written = if *byte == 0 {
                    self.disk.write_zeros((*chunk).into(), &unreadable)
                } else {
                    self.disk.write_chunk(&Arriving {
                        chunk: *chunk,
                        hash: hash(&bytes),
                        bytes: &bytes,
                        unreadable: &unreadable,
                    })
                };
                // A disk that is broken takes nothing, and has what it had.
                if written.is_ok() {
                    self.unreadable[index(*chunk)] = *is_unreadable;
                }
            }
            Step::Zeros(chunks) => {
                self.before_writing(*chunks);
                if self.disk.write_zeros(*chunks, &[]).is_ok() {
                    for chunk in chunks.iter() {
                        self.unreadable[index(chunk)] = false;
                    }
                }
            }
            Step::Flush => self.flush(),
            Step::FailingFlush { in_map } => {
                let medium = if *in_map {
                    &self.map_medium
                } else {
                    &self.disk_medium
                };
                medium.next_sync(Sync::Failing);
                self.flush();
            }
            Step::Crash(disk, map) => {
                self.disk_medium.crash(disk);
                self.map_medium.crash(map);
                self.disk = open(&self.disk_medium, &self.map_medium);
                self.dirty.clear();
                self.check()?;
                // What survived beyond the promise is as good as promised now.
                self.promised = self.durable();
            }
        }
        Ok(())
    }

    fn durable(&self) -> Vec<Chunk> {
        self.disk.durable(ALL).unwrap()
    }

    fn before_writing(&mut self, chunks: ChunkRange) {
        if chunks.iter().any(|chunk| self.dirty.contains(&chunk)) {
            self.flush();
        }
        self.dirty.extend(chunks.iter());
        for chunk in chunks.iter() {
            self.promised[index(chunk)] = Chunk::Unknown;
        }
    }

    fn flush(&mut self) {
        if self.disk.flush().is_ok() {
            self.promised = self.durable();
            self.dirty.clear();
        }
    }

    /// Checks that the disk holds what the map says, and that the map has what was promised.
    fn check(&self) -> Result<(), String> {
        let bytes = self.disk_medium.seen();
        for (chunk, (known, promised)) in ALL
            .iter()
            .zip(self.durable().into_iter().zip(&self.promised))
        {
            let from = 16 * index(chunk);
            let bytes = &bytes[from..(from + 16).min(bytes.len())];
            let found = Chunk::of(bytes);
            if known != Chunk::Unknown && known != found {
                return Err(format!(
                    "chunk {chunk} is {found:?}, the map says {known:?}"
                ));
            }
            if *promised != Chunk::Unknown && known != *promised {
                return Err(format!(
                    "chunk {chunk} was promised as {promised:?}, the map says {known:?}"
                ));
            }
            let is_unreadable = self.disk.unreadable().contains(&lost(chunk));
            let said = self.unreadable[index(chunk)];
            if known != Chunk::Unknown && is_unreadable != said {
                return Err(format!(
                    "chunk {chunk} was written with unreadable ranges: {said}, the map says {is_unreadable}"
                ));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_crash_makes_the_map_lie_or_break_a_promise(mut steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        steps.push(Step::Crash(vec![0, 2, 130], vec![2]));
        for step in &steps {
            if let Err(what) = world.step(step) {
                return Err(TestCaseError::fail(what));
            }
        }
    }
}

#[test]
fn the_check_catches_a_disk_that_does_not_keep_what_it_synced() {
    let mut world = World::new();
    world.step(&Step::Data(ChunkIndex(3), 1, false)).unwrap();
    world.disk_medium.next_sync(Sync::Lying);
    world.step(&Step::Flush).unwrap();
    assert!(world.step(&Step::Crash(vec![0], vec![0])).is_err());
}

#[test]
fn the_check_catches_a_map_that_does_not_keep_what_it_synced() {
    let mut world = World::new();
    world.step(&Step::Data(ChunkIndex(3), 1, false)).unwrap();
    world.map_medium.next_sync(Sync::Lying);
    world.step(&Step::Flush).unwrap();
    assert!(world.step(&Step::Crash(vec![2], vec![0])).is_err());
}

#[test]
fn the_check_catches_a_bad_range_that_is_not_kept() {
    let mut world = World::new();
    world.step(&Step::Data(ChunkIndex(3), 1, true)).unwrap();
    world.step(&Step::Flush).unwrap();
    world.unreadable[3] = false;
    let found = world.step(&Step::Crash(vec![0], vec![0]));
    assert!(found.is_err_and(|what| what.contains("unreadable ranges")));
}

#[test]
fn after_a_failed_sync_nothing_counts_until_the_disk_is_opened_again() {
    let mut world = World::new();
    world.step(&Step::Data(ChunkIndex(3), 1, false)).unwrap();
    world.step(&Step::FailingFlush { in_map: false }).unwrap();
    assert!(
        world.disk.flush().is_err(),
        "the page cache has forgotten the failure; the receiver has not"
    );
    assert_eq!(world.disk.durable_bytes(), 0);
}

#[test]
fn what_a_disk_did_not_keep_of_the_last_windows_is_forgotten_and_sent_again() {
    let mut world = World::new();
    world.step(&Step::Data(ChunkIndex(3), 1, false)).unwrap();
    world.step(&Step::Flush).unwrap();
    world.step(&Step::Data(ChunkIndex(4), 2, false)).unwrap();
    world.step(&Step::Zeros(ChunkRange::new(3, 1))).unwrap();
    world.disk_medium.next_sync(Sync::Lying);
    world.step(&Step::Flush).unwrap();
    world.disk_medium.crash(&[0]);
    world.disk = open(&world.disk_medium, &world.map_medium);
    let durable = world.durable();
    assert_eq!(durable[3], Chunk::Unknown, "the zeros never landed");
    assert_eq!(durable[4], Chunk::Unknown, "nor did the data");
    // They are sent again, and what the map says then is so.
    world.promised.fill(Chunk::Unknown);
    world.dirty.clear();
    world.step(&Step::Data(ChunkIndex(4), 2, false)).unwrap();
    world.step(&Step::Flush).unwrap();
    world.step(&Step::Crash(vec![0], vec![0])).unwrap();
    assert_eq!(
        world.durable()[4],
        Chunk::Data(hash(&content(ChunkIndex(4), 2)))
    );
}

#[test]
fn a_map_that_was_closed_is_believed_unread() {
    let mut world = World::new();
    world.step(&Step::Data(ChunkIndex(3), 1, false)).unwrap();
    world.step(&Step::Flush).unwrap();
    world.disk.close().unwrap();
    world.disk_medium.next_sync(Sync::Good);
    let elsewhere = world.disk_medium.open();
    elsewhere.write(3 * 16, &[9; 16]).unwrap();
    world.disk = open(&world.disk_medium, &world.map_medium);
    assert_ne!(world.durable()[3], Chunk::Unknown);
    let sent = SentDisk {
        index: world.disk.index(),
        root: [0; 32],
        moment: Moment::One,
    };
    let receipt = world.disk.conclude(&sent, true);
    assert!(receipt.is_err(), "a root that is none of this disk's");
}
