//! Disks that fail under a transfer: what is said of them, and that nothing is counted that is not there.

use std::time::Duration;

use chunks::unreadable::MOST_UNREADABLE_RANGES;
use domain::parameters::BadSectors;

use super::checks::check;
use super::plan::{CHUNK, Fault, Plan};
use super::world::World;
use super::{Random, run};
use crate::disk::volatile_storage::Writing;

const PATIENCE: Duration = Duration::from_secs(600);

/// Chunks of the one disk.
const CHUNKS: usize = 40;

/// One disk, whose chunks all differ.
fn plan(faults: &[Fault]) -> Plan {
    let mut plan = Plan::new(1);
    plan.disks = vec![
        (0..CHUNKS)
            .flat_map(|chunk| vec![u8::try_from(chunk + 1).unwrap(); CHUNK as usize])
            .collect(),
    ];
    plan.unreadable = vec![Vec::new()];
    plan.bad_sectors = BadSectors::Fail;
    // It takes some seconds, so that faults find it at work.
    plan.packs = false;
    plan.streams = 2;
    plan.flush_bytes = u64::from(CHUNK);
    plan.limit = Some(100_000);
    plan.shape.latency = Duration::from_millis(10);
    plan.shape.bytes_per_sec = 1_000_000;
    let second = Duration::from_secs(1);
    plan.faults = faults.iter().map(|fault| (second, fault.clone())).collect();
    plan
}

/// Returns why the job fails when nothing is planned that it may fail of.
async fn failure(world: &mut World) -> String {
    world.start_sender();
    let failed = world.end(PATIENCE).await.unwrap_err();
    assert!(!world.server().status().borrow().is_complete(), "{failed}");
    failed
}

#[test]
fn a_source_that_changes_its_size_under_way_ends_the_job_and_says_so() {
    let size = CHUNKS * CHUNK as usize;
    for found in [5000, size + 512] {
        run(Random::new(1), async {
            let mut world = World::new(plan(&[])).await;
            world.faults[0].resize_after(10 * u64::from(CHUNK), found as u64);
            let failed = failure(&mut world).await;
            let says = format!("has {found} bytes but had {size} when the job was created");
            assert!(failed.contains(&says), "{failed}");
        });
    }
}

#[test]
fn a_source_that_loses_a_sector_ends_the_job_and_is_named_with_the_place() {
    run(Random::new(1), async {
        let mut world = World::new(plan(&[])).await;
        let at = 20 * u64::from(CHUNK) + 1000;
        world.faults[0].lose(at..at + 1);
        let failed = failure(&mut world).await;
        let says = format!("512 bytes at byte {}", at / 512 * 512);
        assert!(
            failed.contains("source-0") && failed.contains(&says),
            "{failed}"
        );
        let status = world.server().status().borrow().clone();
        assert!(status.disks[0].bytes_durable < (CHUNKS * CHUNK as usize) as u64);
    });
}

/// A plan whose disk has lost two sectors of one chunk, all of another, and one in the last.
fn plan_with_zeros(faults: &[Fault]) -> Plan {
    let mut plan = plan(faults);
    let chunk = u64::from(CHUNK);
    plan.bad_sectors = BadSectors::Zero;
    let last = CHUNKS as u64 * chunk - 1;
    plan.unreadable = vec![vec![1000..1030, 3 * chunk..4 * chunk, last..last + 1]];
    plan
}

#[test]
fn where_zeros_are_asked_for_the_rest_arrives_and_the_lost_sectors_are_counted() {
    run(Random::new(1), async {
        let mut world = World::new(plan_with_zeros(&[])).await;
        world.start_sender();
        let report = world.end(PATIENCE).await.unwrap();
        let disk = world.server().status().borrow().disks[0];
        assert_eq!(disk.unreadable_ranges, 3);
        assert_eq!(disk.unreadable_bytes, 1024 + u64::from(CHUNK) + 512);
        check(&mut world, &report, 0).unwrap();
    });
}

#[test]
fn what_is_known_to_be_bad_survives_power_failures_and_is_not_sent_again() {
    let dies = Fault::ReceiverDies {
        silently: false,
        power_fails: true,
        back_after: Duration::from_secs(1),
        is_new_epoch: false,
    };
    run(Random::new(1), async {
        let mut world = World::new(plan_with_zeros(&[])).await;
        world.start_sender();
        for _ in 0..3 {
            world.rest(Duration::from_secs(2)).await.unwrap();
            world.inject(&dies).await.unwrap();
        }
        let report = world.end(PATIENCE).await.unwrap();
        assert_eq!(
            world.server().status().borrow().disks[0].unreadable_ranges,
            3
        );
        check(&mut world, &report, 3).unwrap();
    });
}

#[test]
fn a_later_pass_that_can_read_a_sector_replaces_the_zeros() {
    run(Random::new(1), async {
        let mut world = World::new(plan_with_zeros(&[])).await;
        world.start_sender();
        world.end(PATIENCE).await.unwrap();
        // Two of three read well now; a cable was loose.
        let still = world.plan.unreadable[0].split_off(2);
        world.faults[0].heal();
        world.faults[0].lose(still[0].clone());
        world.plan.unreadable = vec![still];
        world.start_sender();
        let report = world.end(PATIENCE).await.unwrap();
        assert_eq!(report.progress.bytes_payload, 2 * u64::from(CHUNK));
        let disk = world.server().status().borrow().disks[0];
        assert_eq!((disk.unreadable_ranges, disk.unreadable_bytes), (1, 512));
        assert_eq!(
            world.media.0[0].0.seen()[..CHUNKS * CHUNK as usize],
            world.plan.arriving(0)[..]
        );
    });
}

#[test]
fn a_disk_that_has_lost_too_much_ends_the_job_and_says_so() {
    run(Random::new(1), async {
        let mut plan = plan(&[]);
        plan.bad_sectors = BadSectors::Zero;
        plan.limit = None;
        // Every other sector.
        let bytes = 2 * 512 * (MOST_UNREADABLE_RANGES + 100);
        plan.disks = vec![vec![7; bytes]];
        let mut world = World::new(plan).await;
        for pair in 0..bytes as u64 / 1024 {
            world.faults[0].lose(pair * 1024..pair * 1024 + 1);
        }
        let failed = failure(&mut world).await;
        let says = "can't be read in more than 16384 ranges: it fails as a whole";
        assert!(failed.contains(says), "{failed}");
    });
}

#[test]
fn a_target_that_fails_a_write_or_a_flush_says_how_and_keeps_what_was_durable() {
    let writes = |how, in_map| Fault::WriteFails {
        disk: 0,
        in_map,
        how,
    };
    let flushes = |in_map| Fault::SyncFails { disk: 0, in_map };
    for (fault, says) in [
        (writes(Writing::Full, false), "no space left at disk: free"),
        (writes(Writing::Full, true), "no space left at map: free"),
        (writes(Writing::Short, false), "can't write disk"),
        (writes(Writing::Short, true), "can't write map"),
        (flushes(false), "can't flush disk"),
        (flushes(true), "can't flush map"),
    ] {
        run(Random::new(1), async {
            let mut world = World::new(plan(std::slice::from_ref(&fault))).await;
            world.start_sender();
            world.rest(Duration::from_secs(2)).await.unwrap();
            world.inject(&fault).await.unwrap();
            // What it has promised it still has when power fails, half a write or not: its next start looks.
            world.rest(Duration::from_millis(900)).await.unwrap();
            world.kill_receiver(true);
            world.start_receiver().await.unwrap();
            let report = world.end(PATIENCE).await.unwrap();
            let trace = world.trace.events().join("\n");
            assert!(trace.contains(says), "{says}\n{trace}");
            check(&mut world, &report, 2).unwrap();
        });
    }
}
