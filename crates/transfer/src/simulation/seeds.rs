//! The properties, over many seeds.

use std::time::Duration;

use super::checks::{check, nothing_durable_was_sent_again};
use super::plan::{CHUNK, Fault, Plan};
use super::world::World;
use super::{Random, run};

/// Seeds of a usual run, and of a long one.
const FEW: u64 = 150;
const MANY: u64 = 10_000;

/// Beyond the time that the bytes need, when all faults are over: an outage that lasts, the pauses between attempts,
/// all time-outs that there are.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The events of a run, and the verdict on it.
struct Outcome {
    trace: Vec<String>,
    verdict: Result<(), String>,
}

/// Runs a plan, after something was done to its world.
fn simulate(plan: Plan, spoil: impl FnOnce(&World)) -> Outcome {
    run(Random::new(plan.seed.rotate_left(32)), async {
        let mut world = World::new(plan).await;
        spoil(&world);
        let verdict = live(&mut world).await;
        Outcome {
            trace: world.trace.events(),
            verdict,
        }
    })
}

async fn live(world: &mut World) -> Result<(), String> {
    world.start_sender();
    let mut losses = 0;
    for (pause, fault) in world.plan.faults.clone() {
        world.rest(pause).await?;
        if world.is_sent() {
            break;
        }
        losses += u64::from(fault.loses_writes());
        world.inject(&fault).await?;
    }
    let bytes: u64 = world.plan.disks.iter().map(|disk| disk.len() as u64).sum();
    let limit = world.limit.borrow().unwrap_or(u64::MAX);
    let rate = limit.min(world.plan.shape.bytes_per_sec);
    let patience = PATIENCE + Duration::from_secs(4 * bytes / rate);
    let report = world.end(patience).await?;
    check(world, &report, losses)
}

/// The seeds to run: one that the environment names, else so many.
fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("WHERRY_SEED") {
        return vec![seed.parse().expect("WHERRY_SEED is a number")];
    }
    let is_long = std::env::var_os("WHERRY_LONG").is_some();
    (0..if is_long { MANY } else { FEW }).collect()
}

fn explain(seed: u64, outcome: &Outcome) -> String {
    let what = outcome.verdict.as_ref().err().cloned().unwrap_or_default();
    let trace = outcome.trace.join("\n");
    format!(
        "{what}\n{:#?}\n{trace}\nWHERRY_SEED={seed} runs it again",
        Plan::new(seed).faults
    )
}

#[test]
fn whatever_goes_wrong_the_source_arrives_and_little_is_sent_twice() {
    for seed in seeds() {
        if seed > 0 && seed % 1000 == 0 {
            println!("{seed} seeds are good");
        }
        let outcome = simulate(Plan::new(seed), |_| {});
        assert!(outcome.verdict.is_ok(), "{}", explain(seed, &outcome));
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in seeds().into_iter().take(40) {
        let [first, second] = [0, 1].map(|_| simulate(Plan::new(seed), |_| {}));
        for (first, second) in first.trace.iter().zip(&second.trace) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

/// A plan with faults of our choice, one each second.
fn with(faults: &[Fault]) -> Plan {
    let mut plan = Plan::new(1);
    let second = Duration::from_secs(1);
    plan.faults = faults.iter().map(|fault| (second, fault.clone())).collect();
    plan
}

const DIES: Fault = Fault::ReceiverDies {
    silently: false,
    power_fails: true,
    back_after: Duration::from_secs(1),
    is_new_epoch: false,
};

// What seeds have found. They are kept as what they stood for then: when plans change, a seed is another plan.

#[test]
fn an_epoch_may_begin_on_a_map_whose_next_sync_fails() {
    let map_fails = Fault::SyncFails {
        disk: 0,
        in_map: true,
    };
    let partition = Fault::Partition(Duration::from_secs(30));
    let outcome = simulate(with(&[partition, map_fails, Fault::NewEpoch]), |_| {});
    assert_eq!(outcome.verdict, Ok(()), "{}", outcome.trace.join("\n"));
}

#[test]
fn a_receiver_may_die_when_only_the_sender_has_seen_its_receipts() -> Result<(), String> {
    run(Random::new(1), async {
        let mut world = World::new(with(&[])).await;
        world.start_sender();
        while !world.is_sent() {
            world.rest(Duration::from_millis(1)).await?;
        }
        world.inject(&DIES).await?;
        let report = world.end(PATIENCE).await?;
        check(&mut world, &report, 1)
    })
}

#[test]
fn receipts_for_what_was_never_flushed_are_caught() {
    for seed in 0..20 {
        let outcome = simulate(Plan::new(seed), |world| {
            let disks = world.media.0.iter();
            disks.for_each(|(disk, _)| disk.lie_from_now_on());
        });
        assert!(outcome.verdict.is_err(), "seed {seed}");
    }
}

#[test]
fn a_chunk_map_that_is_not_kept_is_caught() {
    for seed in 0..20 {
        let outcome = simulate(Plan::new(seed), |world| {
            let maps = world.media.0.iter();
            maps.for_each(|(_, map)| map.lie_from_now_on());
        });
        assert!(outcome.verdict.is_err(), "seed {seed}");
    }
}

#[test]
fn a_run_that_does_not_end_is_caught() {
    let day = Duration::from_secs(86_400);
    let outcome = simulate(with(&[Fault::Partition(day)]), |_| {});
    let verdict = outcome.verdict.unwrap_err();
    assert!(verdict.contains("no receipt"), "{verdict}");
}

#[test]
fn a_durable_chunk_that_is_sent_again_is_caught() -> Result<(), String> {
    run(Random::new(1), async {
        let mut plan = Plan::new(1);
        plan.disks = vec![vec![7; 5 * CHUNK as usize]];
        plan.unreadable = vec![Vec::new()];
        let mut world = World::new(plan).await;
        for content in [7, 8] {
            world.change_source(|disk| disk.fill(content));
            world.start_sender();
            world.end(PATIENCE).await?;
            let verdict = nothing_durable_was_sent_again(&world);
            assert_eq!(verdict.is_err(), content == 8, "{verdict:?}");
        }
        Ok(())
    })
}
