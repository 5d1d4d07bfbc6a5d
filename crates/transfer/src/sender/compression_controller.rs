//! The level of compression, when nobody sets one: none, a fast level, or a higher one.
//!
//! Producers say how long they worked and how long they waited for what comes after them, and the machine how much of
//! its processors is idle. While producers wait and processors idle, the next higher level is tried; while producers
//! never wait, or nothing idles, the next lower one is. A trial is kept only if more of the disk crosses than before,
//! or if producers wait and processors idle all the same: then the link is the limit, and whatever makes the data
//! smaller is gain, though how well the next window of a disk packs may hide it. Without compression, samples tell
//! whether the data would give way to any, and whether the idle processors could keep up with what crosses now. This
//! needs no model of link, processor or data, and it notices when any of them changes. A machine that is busy with its
//! own work is left alone, and so is one whose disks are the limit.

use std::time::Duration;

use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};

use chunks::packing::Sample;

/// zstd's levels from none to slow. Beyond the last the gain is small and the price steep.
pub(super) const LEVELS: [Option<i32>; 5] = [None, Some(1), Some(3), Some(6), Some(10)];

/// The least time and bytes of a decision. Processors can't be asked more often.
const LEAST_TIME: Duration = Duration::from_millis(250);
const _: () = assert!(LEAST_TIME.as_millis() > MINIMUM_CPU_UPDATE_INTERVAL.as_millis());
const LEAST_BYTES: u64 = 16 << 20;
/// A window so long is enough, however few the bytes.
const MOST_TIME: Duration = Duration::from_secs(2);

/// Bytes that may be on their way behind the producers. Until so much has left since the level was changed, the level
/// before is what is measured.
const ON_ITS_WAY: u64 = transport::LEAST_SEND_WINDOW + (8 << 20);
const LONGEST_CHANGE: Duration = Duration::from_secs(4);

/// Parts of the producers' time spent waiting: above the one, more compression is tried, below the other, less.
const WAITS: f64 = 0.25;
const WORKS: f64 = 0.05;

/// Idle processors: above the one, there is room for more compression, below the other, for less.
const SPARE: f64 = 0.5;
const TAKEN: f64 = 0.1;

/// Samples must pack to less than this part of themselves before compression is tried.
const PACKS: f64 = 0.9;

/// A higher level must carry so much more to be kept; a lower one so much at least, since it costs less.
const CLIMB_GAIN: f64 = 1.03;
const DESCENT_GAIN: f64 = 0.98;

/// After a trial that failed, the pause until the next; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A level that carried less than this part of what is carried now, no longer ago than this, is not tried.
const HOPELESS: f64 = 0.7;
const REMEMBERED: Duration = Duration::from_secs(10);

/// Decides. Times count from any fixed moment.
#[derive(Debug)]
pub(super) struct CompressionController {
    level: usize,
    /// The level before the trial that runs, and the bytes a second that it carried.
    trial: Option<(usize, f64)>,
    window: Window,
    /// Time of each level's last measurement, and the bytes a second that it carried.
    carried: [Option<(Duration, f64)>; LEVELS.len()],
    /// Bytes to leave, and until when at most, before the next window begins.
    changing: Option<(u64, Duration)>,
    /// No trial before this.
    rest_until: Duration,
    pause: Duration,
}

/// A chunk that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Its bytes.
    pub(super) bytes: u64,
    /// Bytes that were left of them.
    pub(super) packed_bytes: u64,
    /// The result of a sample of it, if one was taken.
    pub(super) sample: Option<Sample>,
    /// Time that its producer worked for it, and then waited to hand it over.
    pub(super) worked: Duration,
    pub(super) waited: Duration,
}

/// The measurements since the last decision.
#[derive(Debug, Default)]
struct Window {
    began: Duration,
    bytes: u64,
    packed_bytes: u64,
    worked: Duration,
    waited: Duration,
    samples: f64,
    /// The sum of what each packs to.
    packed: f64,
    /// The sum of the seconds that a processor takes for a byte of each.
    secs_per_byte: f64,
}

impl Window {
    /// Returns true if the data is worth a trial, as far as samples tell.
    fn would_pack(&self) -> bool {
        self.packed < PACKS * self.samples
    }

    /// The processors that packing takes at this many bytes a second, as far as samples tell.
    fn takes(&self, rate: f64) -> f64 {
        rate * self.secs_per_byte / self.samples.max(1.0)
    }

    /// The part of their time that producers waited.
    fn waits(&self) -> f64 {
        let whole = (self.worked + self.waited).as_secs_f64();
        self.waited.as_secs_f64() / whole.max(f64::EPSILON)
    }

    /// Returns true if the level did something to the data.
    fn has_packed(&self) -> bool {
        (self.packed_bytes as f64) < PACKS * self.bytes as f64
    }
}

impl Default for CompressionController {
    fn default() -> Self {
        Self {
            level: 0,
            trial: None,
            window: Window::default(),
            carried: [None; LEVELS.len()],
            changing: Some((ON_ITS_WAY, LONGEST_CHANGE)),
            rest_until: Duration::ZERO,
            pause: FIRST_PAUSE,
        }
    }
}

impl CompressionController {
    /// Notes a chunk that was sent at `now`; answers with the level for the next. `idle_share` tells how many
    /// processors were idle since it was last asked.
    pub(super) fn note(
        &mut self,
        now: Duration,
        sent: &Sent,
        mut idle_share: impl FnMut() -> f64,
    ) -> Option<i32> {
        if let Some((bytes, until)) = &mut self.changing {
            *bytes = bytes.saturating_sub(sent.packed_bytes);
            if *bytes > 0 && now < *until {
                return LEVELS[self.level];
            }
            self.changing = None;
            idle_share();
            self.window = Window {
                began: now,
                ..Window::default()
            };
            return LEVELS[self.level];
        }
        let window = &mut self.window;
        window.bytes += sent.bytes;
        window.packed_bytes += sent.packed_bytes;
        window.worked += sent.worked;
        window.waited += sent.waited;
        if let Some(sample) = sent.sample {
            window.samples += 1.0;
            window.packed += sample.packs_to;
            window.secs_per_byte += sample.secs_per_byte;
        }
        let length = now.saturating_sub(window.began);
        let is_enough = length >= LEAST_TIME && window.bytes >= LEAST_BYTES;
        if is_enough || length >= MOST_TIME {
            let (level, waits) = (self.level, self.window.waits());
            self.decide(now, length, idle_share());
            // Behind producers that never wait nothing is on its way.
            if self.level > level || self.level < level && waits >= WORKS {
                self.changing = Some((ON_ITS_WAY, now + LONGEST_CHANGE));
            }
            self.window = Window {
                began: now,
                ..Window::default()
            };
        }
        LEVELS[self.level]
    }

    fn decide(&mut self, now: Duration, length: Duration, idle_share: f64) {
        let rate = self.window.bytes as f64 / length.as_secs_f64();
        let waits = self.window.waits();
        let has_room = waits > WAITS && idle_share > SPARE;
        self.carried[self.level] = Some((now, rate));
        if let Some((before, rate_before)) = self.trial.take() {
            let is_higher = self.level > before;
            let gain = if is_higher { CLIMB_GAIN } else { DESCENT_GAIN };
            let costs_nothing = is_higher && has_room && self.window.has_packed();
            if rate < rate_before * gain && !costs_nothing {
                self.level = before;
                // Data that does not pack at all says nothing of the next, for which there are samples.
                if !is_higher || self.window.has_packed() {
                    self.rest_until = now + self.pause;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            } else {
                self.pause = FIRST_PAUSE;
            }
            return;
        }
        if now < self.rest_until {
            return;
        }
        let would_pay = self.window.would_pack() && self.window.takes(rate) < idle_share;
        let could_rise = self.level + 1 < LEVELS.len() && (self.level > 0 || would_pay);
        let next = if has_room && could_rise {
            self.level + 1
        } else if (waits < WORKS || idle_share < TAKEN) && self.level > 0 {
            self.level - 1
        } else {
            return;
        };
        let is_hopeless = self.carried[next].is_some_and(|(at, carried)| {
            now.saturating_sub(at) < REMEMBERED && carried < rate * HOPELESS
        });
        if !is_hopeless {
            self.trial = Some((self.level, rate));
            self.level = next;
        }
    }
}

/// The machine's processors; `None` where it does not tell of them.
#[derive(Debug)]
pub(super) struct Processors(Option<System>);

impl Processors {
    pub(super) fn new() -> Self {
        let mut processors = Self(System::new().ok());
        processors.idle_share();
        processors
    }

    /// Number of idle processors since the last call, on average. As many as can be used, if that is not known.
    pub(super) fn idle_share(&mut self) -> f64 {
        let Some(system) = &mut self.0 else {
            return f64::INFINITY;
        };
        system.refresh_cpu_usage();
        let busy = f64::from(system.global_cpu_usage()) / 100.0;
        system.cpus().len() as f64 * (1.0 - busy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes a second that two threads compress, and what is left of a byte, by level: as measured on files of a
    /// server.
    const SPEED: [f64; 5] = [6e9, 0.8e9, 0.5e9, 0.2e9, 0.1e9];
    const RATIO: [f64; 5] = [1.0, 0.36, 0.32, 0.30, 0.29];

    /// Processors to spare, as many as anybody wants.
    const IDLE: f64 = 2.0;

    fn ratio(level: usize, compresses: bool) -> f64 {
        if compresses { RATIO[level] } else { 1.0 }
    }

    /// Seconds that a chunk takes: on the processor, and for the link to be ready for the next.
    fn costs(level: usize, link: f64, compresses: bool) -> (f64, f64) {
        let bytes = f64::from(1 << 20);
        let ratio = ratio(level, compresses);
        let worked = bytes / SPEED[level];
        (worked, (bytes * ratio / link - worked).max(0.0))
    }

    /// Sends in virtual time; answers with bytes a second over the last part.
    fn send(
        controller: &mut CompressionController,
        idle_share: f64,
        from: f64,
        seconds: f64,
        link: f64,
        compresses: bool,
    ) -> f64 {
        let (mut now, mut sent, mut counted_from) = (from, 0_u64, None);
        while now < from + seconds {
            let (worked, waited) = costs(controller.level, link, compresses);
            now += worked + waited;
            let seconds = Duration::from_secs_f64;
            let chunk = Sent {
                bytes: 1 << 20,
                packed_bytes: (f64::from(1 << 20) * ratio(controller.level, compresses)) as u64,
                sample: Some(Sample {
                    packs_to: ratio(1, compresses),
                    secs_per_byte: 2.0 / SPEED[1],
                }),
                worked: seconds(worked),
                waited: seconds(waited),
            };
            controller.note(seconds(now), &chunk, || idle_share);
            if now > from + 20.0 {
                counted_from.get_or_insert(now);
                sent += 1 << 20;
            }
        }
        sent as f64 / (now - counted_from.unwrap_or(from))
    }

    fn best(link: f64, compresses: bool) -> f64 {
        (0..LEVELS.len())
            .map(|level| {
                let (worked, waited) = costs(level, link, compresses);
                f64::from(1 << 20) / (worked + waited)
            })
            .fold(0.0, f64::max)
    }

    proptest! {
        /// Whatever link and data, and also after both have changed, the choice carries nearly what the best fixed
        /// level would.
        #[test]
        fn it_carries_what_the_best_level_does(
            first in 1e6_f64..6e9, second in 1e6_f64..6e9, packs in any::<bool>(), packs_later in any::<bool>(),
        ) {
            let mut controller = CompressionController::default();
            let mut from = 0.0;
            for (link, compresses) in [(first, packs), (second, packs_later)] {
                let rate = send(&mut controller, IDLE, from, 80.0, link, compresses);
                let best = best(link, compresses);
                prop_assert!(rate >= best * 0.85, "{rate:.3e} of {best:.3e} at level {}", controller.level);
                from += 81.0;
            }
        }
    }

    #[test]
    fn a_slow_link_gets_a_high_level_and_a_fast_one_none() {
        let mut slow = CompressionController::default();
        send(&mut slow, IDLE, 0.0, 30.0, 12.5e6, true);
        assert!(slow.level >= 3, "level {}", slow.level);
        let mut fast = CompressionController::default();
        send(&mut fast, IDLE, 0.0, 30.0, 5e9, true);
        assert_eq!(fast.level, 0);
    }

    #[test]
    fn a_slow_link_gets_the_highest_level_however_unevenly_the_disk_packs() {
        let mut controller = CompressionController::default();
        let mut now = 0.0;
        for number in 0..900 {
            // A third of it worse than the rest, in turn: more than levels differ by.
            let uneven = if number / 40 % 3 == 0 { 1.3 } else { 1.0 };
            let (level, bytes) = (controller.level, f64::from(1 << 20));
            let packed = (ratio(level, true) * uneven).min(1.0) * bytes;
            let worked = bytes / SPEED[level];
            let waited = (packed / 12.5e6 - worked).max(0.0);
            now += worked + waited;
            let chunk = Sent {
                bytes: 1 << 20,
                packed_bytes: packed as u64,
                sample: Some(Sample {
                    packs_to: 0.4,
                    secs_per_byte: 2.0 / SPEED[1],
                }),
                worked: Duration::from_secs_f64(worked),
                waited: Duration::from_secs_f64(waited),
            };
            controller.note(Duration::from_secs_f64(now), &chunk, || IDLE);
        }
        assert!(now < 60.0, "{now} s");
        assert_eq!(controller.level, LEVELS.len() - 1);
    }

    #[test]
    fn what_crosses_faster_than_idle_processors_pack_is_left_as_it_is() {
        let mut controller = CompressionController::default();
        // As where the disks are the limit: half a processor idles, and packs 200 MB/s.
        send(&mut controller, 0.6, 0.0, 60.0, 500e6, true);
        assert!(controller.carried[1].is_none(), "level 1 was tried");
        send(&mut controller, 0.6, 62.0, 30.0, 50e6, true);
        assert!(controller.level > 0, "a slower link leaves room for it");
    }

    #[test]
    fn what_no_longer_waits_for_the_link_is_packed_less_at_once() {
        let mut controller = CompressionController::default();
        send(&mut controller, IDLE, 0.0, 60.0, 12.5e6, true);
        assert_eq!(controller.level, LEVELS.len() - 1);
        send(&mut controller, 0.0, 61.0, 2.1, 5e9, true);
        assert_eq!(controller.level, 0);
    }

    #[test]
    fn a_machine_without_spare_processors_does_not_compress() {
        let mut controller = CompressionController::default();
        send(&mut controller, 0.3, 0.0, 30.0, 12.5e6, true);
        assert_eq!(controller.level, 0, "nothing idles that could compress");
        send(&mut controller, IDLE, 31.0, 30.0, 100e6, true);
        assert!(controller.level > 0);
        send(&mut controller, 0.0, 62.0, 60.0, 5e9, true);
        assert_eq!(
            controller.level, 0,
            "the link is fast, and others want the processors"
        );
    }
}
