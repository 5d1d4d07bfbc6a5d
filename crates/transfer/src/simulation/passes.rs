//! A pass after the first costs what has changed, also when it is not the second; and what the target's medium has lost
//! is mended by the next.

use std::time::Duration;

use super::checks::{check, receipts_are_for_the_source, what_was_received_survives};
use super::pace::plan;
use super::plan::{CHUNK, Fault, Plan};
use super::world::World;
use super::{Random, run};
use crate::protocol::FRAME_BYTES;

const CHUNKS: usize = 800;
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn each_pass_over_one_percent_of_changed_chunks_costs_one_percent_of_the_bytes()
-> Result<(), String> {
    run(Random::new(3), async {
        let mut world = World::new(plan(CHUNKS * CHUNK as usize, None)).await;
        world.start_sender();
        world.end(PATIENCE).await?;
        let first = world.network.data_bytes();
        for pass in 1..=4_u8 {
            let before = world.network.data_bytes();
            world.change_source(|disk| {
                let changed = disk.chunks_mut(CHUNK as usize).skip(pass.into());
                changed.step_by(100).for_each(|chunk| chunk[77] ^= pass);
            });
            world.start_sender();
            let report = world.end(PATIENCE).await?;
            let sent = world.network.data_bytes() - before;
            let frame = u64::from(CHUNK) + FRAME_BYTES as u64;
            assert_eq!(sent, CHUNKS as u64 / 100 * frame, "pass {pass}");
            assert_eq!(sent, first / 100);
            receipts_are_for_the_source(&world, &report)?;
        }
        what_was_received_survives(&mut world)
    })
}

#[test]
fn two_streams_work_at_both_halves_of_a_disk_at_once() -> Result<(), String> {
    run(Random::new(3), async {
        let mut plan = plan(CHUNKS * CHUNK as usize, None);
        plan.streams = 2;
        let mut world = World::new(plan).await;
        world.start_sender();
        world.end(PATIENCE).await?;
        let writes = world.media.0[0].0.writes();
        let middle = CHUNKS as u64 / 2 * u64::from(CHUNK);
        let first = writes[..CHUNKS / 4].iter();
        let behind = first.filter(|(offset, _)| *offset >= middle);
        assert!((CHUNKS / 16..CHUNKS / 4 - CHUNKS / 16).contains(&behind.count()));
        Ok(())
    })
}

#[test]
fn a_pass_over_nothing_that_has_changed_sends_nothing() -> Result<(), String> {
    run(Random::new(3), async {
        let mut world = World::new(plan(CHUNKS * CHUNK as usize, None)).await;
        world.start_sender();
        world.end(PATIENCE).await?;
        let first = world.network.data_bytes();
        for _ in 0..3 {
            world.start_sender();
            let report = world.end(PATIENCE).await?;
            check(&mut world, &report, 0)?;
            world.start_receiver().await?;
        }
        assert_eq!(world.network.data_bytes(), first);
        Ok(())
    })
}

/// A disk that takes eight seconds, and whether it can tell that it was not written.
fn slow(is_tracked: bool) -> Plan {
    Plan {
        is_tracked,
        ..plan(CHUNKS * CHUNK as usize, Some(1_600_000))
    }
}

const AGENT_DIES: Fault = Fault::SenderDies {
    silently: false,
    back_after: Duration::from_secs(1),
};

/// A world whose disk can tell that it was not written, and has arrived.
async fn received() -> Result<World, String> {
    let mut world = World::new(slow(true)).await;
    world.limit.send_replace(None);
    world.start_sender();
    world.end(PATIENCE).await?;
    Ok(world)
}

/// Bytes that were read of the disk, in percent of its size, when a pass over it ends after its agent has died half
/// way.
async fn read_by_a_pass_with_a_fall(world: &mut World) -> Result<u64, String> {
    let before = world.faults[0].bytes_read();
    world.start_sender();
    world.rest(Duration::from_secs(4)).await?;
    world.inject(&AGENT_DIES).await?;
    let report = world.end(PATIENCE).await?;
    receipts_are_for_the_source(world, &report)?;
    let read = world.faults[0].bytes_read() - before;
    Ok(read * 100 / (CHUNKS as u64 * u64::from(CHUNK)))
}

#[test]
fn what_was_read_once_is_not_read_again_while_nothing_is_written() -> Result<(), String> {
    for is_tracked in [false, true] {
        run(Random::new(3), async {
            let mut world = World::new(slow(is_tracked)).await;
            let read = read_by_a_pass_with_a_fall(&mut world).await?;
            let falls = if is_tracked { 100..106 } else { 140..160 };
            assert!(falls.contains(&read), "{read} %, tracked: {is_tracked}");
            // Nothing has changed, whoever asks; and the receiver has it on disk.
            world.kill_receiver(true);
            world.start_receiver().await?;
            let before = world.faults[0].bytes_read();
            world.start_sender();
            let report = world.end(PATIENCE).await?;
            receipts_are_for_the_source(&world, &report)?;
            assert_eq!(world.faults[0].bytes_read() == before, is_tracked);
            Ok::<(), String>(())
        })?;
    }
    Ok(())
}

#[test]
fn what_was_found_to_be_the_same_is_not_read_again_either() -> Result<(), String> {
    run(Random::new(3), async {
        let mut world = received().await?;
        // The last three quarters are others now, so there is half of the pass to go when the agent dies, and half of
        // what it has read was the same.
        world.limit.send_replace(Some(1_200_000));
        world.change_source(|disk| {
            let changed = disk.chunks_mut(CHUNK as usize).skip(CHUNKS / 4);
            changed.for_each(|chunk| chunk[5] ^= 1);
        });
        let read = read_by_a_pass_with_a_fall(&mut world).await?;
        assert!((100..106).contains(&read), "{read} %");
        what_was_received_survives(&mut world)
    })
}

#[test]
fn a_source_that_changes_and_does_not_say_so_is_caught() -> Result<(), String> {
    run(Random::new(3), async {
        let mut world = received().await?;
        world.change_source_in_silence(|disk| disk[77] ^= 1);
        world.start_sender();
        let report = world.end(PATIENCE).await?;
        assert!(receipts_are_for_the_source(&world, &report).is_err());
        Ok(())
    })
}

/// Without `Checksum`: a medium that has said it keeps what it was given, and did not when power failed.
#[test]
fn what_the_medium_did_not_keep_is_found_without_being_asked_and_sent_again() -> Result<(), String>
{
    run(Random::new(3), async {
        let mut world = World::new(plan(CHUNKS * CHUNK as usize, Some(1_000_000))).await;
        world.start_sender();
        world.rest(Duration::from_secs(4)).await?;
        let (disk, _) = &world.media.0[0];
        disk.lie_from_now_on();
        world.rest(Duration::from_secs(4)).await?;
        let (disk, _) = &world.media.0[0];
        let written = disk.writes().len();
        disk.tell_the_truth();
        world.kill_receiver(true);
        world.forget_promises();
        world.start_receiver().await?;
        world.limit.send_replace(None);
        let report = world.end(PATIENCE).await?;
        receipts_are_for_the_source(&world, &report)?;
        assert!(written > 300, "{written} chunks were written before");
        what_was_received_survives(&mut world)
    })
}
