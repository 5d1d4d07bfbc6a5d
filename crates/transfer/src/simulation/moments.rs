//! A source that is written while it is copied. A receipt says that a copy is one moment in time only where it is what
//! the source held at one.

use std::time::Duration;

use domain::disk::Moment;
use domain::parameters::Consistency;

use super::checks::root_of;
use super::pace;
use super::plan::{CHUNK, Plan};
use super::world::World;
use super::{Random, run};

/// Seeds of a usual run, and of a long one.
const FEW: u64 = 60;
const MANY: u64 = 3000;

const PATIENCE: Duration = Duration::from_secs(3600);

/// The way a source is written.
#[derive(Clone, Copy, PartialEq)]
enum Writer {
    /// The kernel counts what it writes.
    Counted,
    /// The kernel does not, and says so.
    Unknown,
    /// The kernel does not, and says that nothing was written.
    Silent,
}

/// The moment that each disk's receipt names, after writes and faults from a seed. An error if one is wrong.
fn receipts(seed: u64, consistency: Consistency, writer: Writer) -> Result<Vec<Moment>, String> {
    let mut plan = Plan::new(seed);
    plan.unreadable.iter_mut().for_each(Vec::clear);
    plan.consistency = consistency;
    plan.is_tracked = writer != Writer::Unknown;
    run(Random::new(seed.rotate_left(32)), async {
        let mut random = Random::new(seed ^ 0x77);
        let mut world = World::new(plan).await;
        let mut held = vec![root_of(&world.plan, 0)];
        world.start_sender();
        let mut faults = world.plan.faults.clone().into_iter();
        for _ in 0..random.between(1, 4) {
            world.rest(random.up_to(Duration::from_secs(8))).await?;
            if world.is_sent() {
                break;
            }
            let writes: Vec<u64> = (0..random.between(1, 6)).map(|_| random.next()).collect();
            let write = |disk: &mut [u8]| {
                for at in writes {
                    let at = usize::try_from(at % disk.len() as u64).unwrap();
                    disk[at] ^= 0x55;
                }
            };
            if writer == Writer::Silent {
                world.change_source_in_silence(write);
            } else {
                world.change_source(write);
            }
            world.trace.note(|| "the source is written".to_owned());
            held.push(root_of(&world.plan, 0));
            if let Some((pause, fault)) = faults.next() {
                world.rest(pause / 4).await?;
                world.inject(&fault).await?;
            }
        }
        world.end(PATIENCE).await?;
        let status = world.server().status().borrow().clone();
        let mut moments = Vec::new();
        for (number, disk) in status.disks.iter().enumerate() {
            let receipt = disk.receipt.ok_or("a disk has no receipt")?;
            let is_held = match number {
                0 => held.contains(&Some(receipt.root())),
                _ => root_of(&world.plan, number) == Some(receipt.root()),
            };
            if receipt.moment() == Moment::One && !is_held {
                let trace = world.trace.events().join("\n");
                return Err(format!("disk {number} never was what arrived\n{trace}"));
            }
            moments.push(receipt.moment());
        }
        Ok(moments)
    })
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("WHERRY_SEED") {
        return vec![seed.parse().expect("WHERRY_SEED is a number")];
    }
    let is_long = std::env::var_os("WHERRY_LONG").is_some();
    (0..if is_long { MANY } else { FEW }).collect()
}

#[test]
fn what_is_delivered_is_one_moment_in_time_whatever_is_written_under_way() {
    for seed in seeds() {
        let moments = receipts(seed, Consistency::Crash, Writer::Counted);
        let moments = moments.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert!(
            moments.iter().all(|moment| *moment == Moment::One),
            "seed {seed}"
        );
    }
}

#[test]
fn a_fuzzy_copy_says_whether_it_is_one_moment_in_time() {
    let mut of_written = [0, 0];
    for seed in seeds() {
        let moments = receipts(seed, Consistency::Fuzzy, Writer::Counted);
        let moments = moments.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let (first, others) = moments.split_first().expect("there is a disk");
        assert!(
            others.iter().all(|moment| *moment == Moment::One),
            "seed {seed}"
        );
        assert_ne!(*first, Moment::Unknown, "seed {seed}");
        of_written[usize::from(*first == Moment::One)] += 1;
    }
    assert!(
        seeds().len() == 1 || of_written.iter().all(|count| *count > 0),
        "{of_written:?}"
    );
}

#[test]
fn where_the_kernel_does_not_count_it_is_not_known_and_no_failure() {
    for seed in seeds().into_iter().take(20) {
        let moments = receipts(seed, Consistency::Crash, Writer::Unknown);
        let moments = moments.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert!(
            moments.iter().all(|moment| *moment == Moment::Unknown),
            "seed {seed}"
        );
    }
}

#[test]
fn a_receipt_for_a_moment_that_never_was_is_caught() {
    let caught =
        (0..FEW).filter(|seed| receipts(*seed, Consistency::Crash, Writer::Silent).is_err());
    assert!(caught.count() > 5);
}

/// A pass over a disk that is written is repeated. The second ends at the first write, and not after all of the disk.
#[test]
fn a_second_pass_ends_at_the_first_write() -> Result<(), String> {
    run(Random::new(3), async {
        let bytes = 800 * CHUNK as usize;
        let mut plan = pace::plan(bytes, None);
        plan.is_tracked = true;
        let mut world = World::new(plan).await;
        let write = |world: &mut World| world.change_source(|disk| disk[77] ^= 1);
        world.start_sender();
        world.rest(Duration::from_millis(300)).await?;
        write(&mut world);
        while world.faults[0].bytes_read() <= bytes as u64 {
            world.rest(Duration::from_millis(10)).await?;
        }
        // It takes minutes now.
        world.change_source(|disk| disk.iter_mut().for_each(|byte| *byte ^= 0x80));
        world.limit.send_replace(Some(50_000));
        let began = tokio::time::Instant::now();
        let attempts = |world: &World| {
            let trace = world.trace.events();
            let ended = trace
                .iter()
                .filter(|event| event.contains("was written while"));
            ended.count()
        };
        while attempts(&world) < 2 {
            world.rest(Duration::from_millis(100)).await?;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        Ok(())
    })
}
