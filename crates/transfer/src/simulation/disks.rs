//! Disks that fail under a transfer: what is said of them, and that nothing is counted that is not there.

use std::time::Duration;

use super::checks::check;
use super::plan::{CHUNK, Fault, Plan};
use super::world::World;
use super::{Random, run};
use crate::disk::forgetful::Writing;

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
    plan.flush_bytes = u64::from(CHUNK);
    plan.limit = Some(100_000);
    plan.shape.latency = Duration::from_millis(10);
    plan.shape.bytes_per_sec = 1_000_000;
    let second = Duration::from_secs(1);
    plan.faults = faults.iter().map(|fault| (second, fault.clone())).collect();
    plan
}

/// Why the job fails when nothing is planned that it may fail of.
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
            world.suffer(&fault).await.unwrap();
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
