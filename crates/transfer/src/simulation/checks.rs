//! The rules that hold at the end of every run, whatever went wrong in it.

use std::path::Path;

use chunks::ChunkIndex;
use chunks::hashes::{Chunk, ChunkHashes, Hash, is_zero};

use super::plan::{CHUNK, Plan};
use super::world::{BEHIND, World};
use crate::chunk_map::ChunkMap;
use crate::protocol::FRAME_BYTES;
use crate::sender::SendReport;

/// Chunks that wait in the queues and hands of one stream, on both sides together.
const IN_HAND: u64 = 12;

/// Flush windows that a crash may cost, and no more than one for each stream.
const WINDOWS: u64 = 2;

/// Bytes of a record's prefix in a chunk map.
const RECORD_PREFIX: usize = 8;

/// Holds a run that has its receipt against its plan. `losses` is how often what was written but not flushed may have
/// been lost.
pub(super) fn check(world: &mut World, report: &SendReport, losses: u64) -> Result<(), String> {
    receipts_are_for_the_source(world, report)?;
    let is_flipped = world.network.flips() > 0;
    if !is_flipped {
        little_was_read_twice(world, losses)?;
        nothing_durable_was_sent_again(world)?;
        little_was_written_twice(world, losses)?;
    }
    little_was_sent_twice(world, losses, is_flipped)?;
    what_was_received_survives(world)
}

/// The root of what arrives of a disk.
pub(super) fn root_of(plan: &Plan, disk: usize) -> Option<Hash> {
    let content = plan.arriving(disk);
    let mut hashes = ChunkHashes::new(content.len() as u64, CHUNK);
    for (number, chunk) in (0_u64..).zip(content.chunks(CHUNK as usize)) {
        hashes.set(ChunkIndex(number), Chunk::of(chunk)).unwrap();
    }
    for range in plan.unreadable_sectors(disk) {
        assert!(hashes.add_unreadable(range));
    }
    hashes.root().unwrap()
}

pub(super) fn receipts_are_for_the_source(
    world: &World,
    report: &SendReport,
) -> Result<(), String> {
    let status = world.server().status().borrow().clone();
    if !status.is_complete() {
        return Err(format!(
            "the sender has its receipt, the receiver says {status:?}"
        ));
    }
    for (number, (disk, (_, sent))) in status.disks.iter().zip(&report.roots).enumerate() {
        let received = disk.receipt.map(|receipt| receipt.root());
        let source = root_of(&world.plan, number);
        if source.is_none() || received != source || Some(*sent) != source {
            return Err(format!("the roots of disk {} differ", disk.index));
        }
    }
    Ok(())
}

/// The chunk map forgets a chunk when it is written over: that a durable one was sent again would stand there.
pub(super) fn nothing_durable_was_sent_again(world: &World) -> Result<(), String> {
    for (number, (_, map)) in world.media.0.iter().enumerate() {
        for (offset, record) in map.writes() {
            if offset > 0 && forgets(record.get(RECORD_PREFIX..).unwrap_or_default()) {
                return Err(format!("a durable chunk of disk {number} was sent again"));
            }
        }
    }
    Ok(())
}

fn forgets(mut body: &[u8]) -> bool {
    while let Some(kind) = body.first() {
        let length = match kind {
            1 => 13,
            2 => 41,
            // The map was closed.
            4 => 1,
            5 | 7 => 13,
            6 => 33,
            _ => return true,
        };
        // Half a record may have been written.
        body = body.get(length..).unwrap_or_default();
    }
    false
}

fn data_chunks(world: &World) -> u64 {
    let disks = (0..world.plan.disks.len()).map(|disk| world.plan.arriving(disk));
    let count = |disk: Vec<u8>| {
        let chunks = disk.chunks(CHUNK as usize);
        chunks.filter(|chunk| !is_zero(chunk)).count() as u64
    };
    disks.map(count).sum()
}

/// Bytes that are written again after a crash.
fn lost_at_most(world: &World, losses: u64) -> u64 {
    let streams = world.plan.streams as u64;
    let over_the_window = streams * u64::from(CHUNK);
    losses * (WINDOWS.min(streams) * world.plan.flush_bytes + over_the_window)
}

fn little_was_written_twice(world: &World, losses: u64) -> Result<(), String> {
    let written: u64 = world
        .media
        .0
        .iter()
        .flat_map(|(disk, _)| disk.writes())
        .filter(|(_, bytes)| !is_zero(bytes))
        .map(|_| u64::from(CHUNK))
        .sum();
    let needed = data_chunks(world) * u64::from(CHUNK);
    let most = needed + lost_at_most(world, losses);
    if written > most {
        return Err(format!(
            "{written} bytes were written for a source of {needed}, at most {most} may be after {losses} crashes"
        ));
    }
    Ok(())
}

/// Bytes that may be under way when a connection breaks.
fn under_way(plan: &Plan) -> u64 {
    let frame = u64::from(CHUNK) + FRAME_BYTES as u64;
    plan.streams as u64 * (plan.shape.window as u64 + IN_HAND * frame)
}

/// Bytes that were under way when a connection broke are sent again, and those that a crash has taken.
fn little_was_sent_twice(world: &World, losses: u64, is_flipped: bool) -> Result<(), String> {
    let plan = &world.plan;
    let frame = u64::from(CHUNK) + FRAME_BYTES as u64;
    let chunks: u64 = plan
        .disks
        .iter()
        .map(|disk| disk.len().div_ceil(CHUNK as usize) as u64)
        .sum();
    let unreadable: usize = plan.unreadable.iter().map(Vec::len).sum();
    let transports = world.network.connections_used();
    let most = data_chunks(world) * frame
        + transports.saturating_sub(1) * under_way(plan)
        + (transports + 1) * (chunks + unreadable as u64) * FRAME_BYTES as u64
        + lost_at_most(world, losses + u64::from(is_flipped));
    let sent = world.network.data_bytes();
    if sent > most {
        return Err(format!(
            "{sent} bytes were sent over {transports} connections, at most {most} may be after {losses} crashes"
        ));
    }
    Ok(())
}

/// Of a source that can tell that nothing was written, what was under way when a connection broke is read again, and
/// what a crash has taken.
fn little_was_read_twice(world: &World, losses: u64) -> Result<(), String> {
    let plan = &world.plan;
    let has_unreadable = plan.unreadable.iter().any(|lost| !lost.is_empty());
    // A bad sector is tried each time, and how much is under way that is packed nobody knows.
    if !plan.is_tracked || plan.packs || has_unreadable {
        return Ok(());
    }
    let read: u64 = world.faults.iter().map(|disk| disk.bytes_read()).sum();
    let needed = data_chunks(world) * u64::from(CHUNK);
    let most = needed
        + world.network.connections_used().saturating_sub(1) * under_way(plan)
        + lost_at_most(world, losses);
    if read > most {
        return Err(format!(
            "{read} bytes were read of a source of {needed}, at most {most} may be after {losses} crashes"
        ));
    }
    Ok(())
}

/// A receipt is for what no power failure takes away.
pub(super) fn what_was_received_survives(world: &mut World) -> Result<(), String> {
    let plan = world.plan.clone();
    world.kill_receiver(false);
    for (number, ((medium, map), source)) in world.media.0.iter().zip(&plan.disks).enumerate() {
        map.crash(&[0]);
        medium.crash(&[0]);
        let path = Path::new("map");
        let nothing = ChunkHashes::new(source.len() as u64, CHUNK);
        let mut durable = ChunkMap::on(path, map.open(), nothing)
            .map_err(|error| error.to_string())?
            .known;
        if durable.root().unwrap() != root_of(&plan, number) {
            return Err(format!("the map of disk {number} does not have all of it"));
        }
        let (target, source) = (medium.seen(), plan.arriving(number));
        if target.len() != source.len() + BEHIND || target[..source.len()] != source[..] {
            return Err(format!("disk {number} is not the source's after all"));
        }
        if target[source.len()..].iter().any(|byte| *byte != 0) {
            return Err(format!("something lies behind the bytes of disk {number}"));
        }
    }
    Ok(())
}
