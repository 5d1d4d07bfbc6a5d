//! A limit holds and changes without a dip, those who share one get the same, and an outage of ten minutes costs what
//! was under way.

use std::time::Duration;

use domain::parameters::{BadSectors, Consistency};
use domain::rate::Rate;

use super::checks::check;
use super::network::Shape;
use super::plan::{CHUNK, Plan};
use super::world::World;
use super::{Random, run};
use crate::limits::SharedLimit;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(300);

/// A disk of noise over a good network.
pub(super) fn plan(bytes: usize, limit: Option<u64>) -> Plan {
    let mut random = Random::new(7);
    Plan {
        unreadable: vec![Vec::new()],
        bad_sectors: BadSectors::Fail,
        consistency: Consistency::Crash,
        seed: 7,
        disks: vec![
            (0..bytes / 8)
                .flat_map(|_| random.next().to_le_bytes())
                .collect(),
        ],
        shape: Shape {
            latency: Duration::from_millis(20),
            bytes_per_sec: 20_000_000,
            window: 256 << 10,
        },
        streams: 2,
        flush_bytes: 16 * u64::from(CHUNK),
        packs: false,
        checksum: false,
        limit,
        is_tracked: false,
        faults: Vec::new(),
    }
}

/// Bytes that went out in each half of a second.
async fn watch(world: &mut World, halves: usize) -> Result<Vec<u64>, String> {
    let mut sent = Vec::new();
    for _ in 0..halves {
        let before = world.network.data_bytes();
        world.rest(Duration::from_millis(500)).await?;
        sent.push(world.network.data_bytes() - before);
    }
    Ok(sent)
}

fn holds(sent: &[u64], limit: u64) {
    let wanted = limit / 2;
    for bytes in sent {
        assert!(
            bytes.abs_diff(wanted) <= wanted / 20,
            "{bytes} bytes in half a second at {limit} a second: {sent:?}"
        );
    }
}

#[test]
fn a_limit_holds_within_five_percent_and_changes_without_a_dip() -> Result<(), String> {
    run(Random::new(7), async {
        let mut world = World::new(plan(24 * MIB, Some(1_000_000))).await;
        world.start_sender();
        world.rest(Duration::from_secs(1)).await?;
        holds(&watch(&mut world, 8).await?, 1_000_000);
        world.limit.send_replace(Some(3_000_000));
        holds(&watch(&mut world, 6).await?, 3_000_000);
        world.limit.send_replace(Some(500_000));
        holds(&watch(&mut world, 8).await?, 500_000);
        world.limit.send_replace(None);
        let report = world.end(PATIENCE).await?;
        check(&mut world, &report, 0)
    })
}

/// The same of several worlds at once.
async fn watch_all(worlds: &mut [World], halves: usize) -> Result<Vec<Vec<u64>>, String> {
    let mut sent = vec![Vec::new(); worlds.len()];
    for _ in 0..halves {
        let before: Vec<u64> = worlds
            .iter()
            .map(|world| world.network.data_bytes())
            .collect();
        worlds[0].rest(Duration::from_millis(500)).await?;
        for ((world, before), sent) in worlds.iter().zip(before).zip(&mut sent) {
            sent.push(world.network.data_bytes() - before);
        }
    }
    Ok(sent)
}

#[test]
fn runs_that_share_a_limit_get_the_same_and_what_one_leaves() -> Result<(), String> {
    for runs in [2, 3] {
        run(Random::new(7), async {
            let all = 1_000_000 * runs as u64;
            let shared = SharedLimit::new(Rate::from_bytes_per_sec(all).ok_or("no rate")?);
            let mut worlds = Vec::new();
            for number in 0..runs {
                let mut plan = plan(16 * MIB, None);
                // Neither more streams nor smaller chunks are worth more.
                plan.streams = number + 1;
                let mut world = World::new(plan).await;
                world.share(&shared);
                world.start_sender();
                worlds.push(world);
            }
            worlds[0].rest(Duration::from_secs(1)).await?;
            let all_sent = watch_all(&mut worlds, 8).await?;
            for sent in all_sent {
                holds(&sent, 1_000_000);
            }
            // One is held back by its own limit: the others have what it leaves, and nothing is lost.
            worlds[0].limit.send_replace(Some(400_000));
            worlds[0].rest(Duration::from_secs(1)).await?;
            let sent = watch_all(&mut worlds, 6).await?;
            holds(&sent[0], 400_000);
            for sent in &sent[1..] {
                holds(sent, (all - 400_000) / (runs as u64 - 1));
            }
            worlds[0].limit.send_replace(None);
            for world in &mut worlds {
                let report = world.end(PATIENCE).await?;
                check(world, &report, 0)?;
            }
            Ok::<_, String>(())
        })?;
    }
    Ok(())
}

#[test]
fn an_outage_of_ten_minutes_costs_no_more_than_what_was_under_way() -> Result<(), String> {
    run(Random::new(7), async {
        let plan = plan(8 * MIB, Some(1_000_000));
        let window_of_each_stream = plan.flush_bytes + plan.shape.window as u64;
        let streams = plan.streams as u64;
        let mut world = World::new(plan).await;
        world.start_sender();
        world.rest(Duration::from_secs(4)).await?;
        world.network.partition(Duration::from_secs(600));
        let before = world.network.data_bytes();
        assert!(before > 3_000_000, "{before} bytes after four seconds");
        world.rest(Duration::from_secs(590)).await?;
        let during = world.network.data_bytes() - before;
        assert!(
            during <= streams * window_of_each_stream,
            "{during} bytes were sent to nobody"
        );
        let report = world.end(PATIENCE).await?;
        let sent = world.network.data_bytes();
        let needed = 8 * MIB as u64 + 600 * 56;
        assert!(
            sent <= needed + streams * window_of_each_stream,
            "{sent} bytes were sent of {needed}"
        );
        assert!(report.progress.bytes_equal > 2_000_000, "{report:?}");
        check(&mut world, &report, 0)
    })
}
