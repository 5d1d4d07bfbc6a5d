//! The engine in virtual time, over a network in memory and on disks that forget, with faults drawn from a seed.
//!
//! Everything runs on one thread whose clock stands still while anybody can go on and jumps when all wait. Whatever is
//! random is drawn from the seed: latency and bandwidth, when which fault comes, what a crash leaves of a disk, how
//! late a thread is. So a seed gives the same run each time, hours of it in milliseconds.
//!
//! `WHERRY_SEED=N` runs one seed, `WHERRY_LONG=1` thousands of them.

pub(crate) mod network;

mod checks;
mod disks;
mod media;
mod moments;
mod pace;
mod passes;
mod plan;
mod seeds;
mod world;

pub(crate) use media::Media;

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

/// Longest that a thread is late; one in sixteen is, the others begin within a few milliseconds.
const LATEST: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_millis(3);

thread_local! {
    /// The generator of pauses, while this thread is in virtual time.
    static PAUSES: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// Returns the time until work that blocks begins; `None` outside of virtual time.
pub(crate) fn pause() -> Option<Duration> {
    PAUSES.with_borrow_mut(|random| {
        let random = random.as_mut()?;
        let most = if random.below(16) == 0 { LATEST } else { SOON };
        Some(random.up_to(most))
    })
}

/// Runs a future in virtual time.
fn run<T>(random: Random, future: impl Future<Output = T>) -> T {
    /// Ends virtual time also when the future panics.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            PAUSES.set(None);
        }
    }
    PAUSES.set(Some(random));
    let _ends = Ends;
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Random numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A generator of its own, so that what it is used for does not depend on who else draws.
    fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap();
        Duration::from_micros(self.below(micros + 1))
    }

    /// Bytes that say what a crash does to each write that was not synced.
    fn fates(&mut self) -> Vec<u8> {
        (0..8).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// The events of a run, each with its time.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    began: Instant,
    events: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl Trace {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            events: Arc::default(),
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        let event = (self.began.elapsed(), what());
        self.events.lock().unwrap().push(event);
    }

    /// All events; those of one moment in alphabetical order, since it is nobody's business which task came first.
    fn events(&self) -> Vec<String> {
        let mut events = self.events.lock().unwrap().clone();
        events.sort();
        events
            .iter()
            .map(|(at, what)| format!("{:10.3} s  {what}", at.as_secs_f64()))
            .collect()
    }
}
