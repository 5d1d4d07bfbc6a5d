//! Limits on the silence of a run's agent: after a minute the run gives its place back, after an hour it fails.
//!
//! Silence counts over all leases of the run, since the last byte arrived. It depends only on the receiver's status; no
//! clock is read here.

use std::time::{Duration, Instant};

/// Time over which the least progress is measured.
const HOUR: Duration = Duration::from_secs(3600);

/// The settings that limit silence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Silence, over all leases, after which the run fails.
    pub(super) patience: Duration,
    /// Time without a connection after which the run is parked.
    pub(super) park_after: Duration,
    /// Time with a connection and without a byte after which the run is parked.
    pub(super) still_after: Duration,
    /// Bytes of the source's disks that must be covered in an hour.
    pub(super) least_per_hour: u64,
}

/// The agent's activity, according to the receiver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) is_connected: bool,
    /// Bytes that arrived on this receiver's data streams.
    pub(super) bytes_wire: u64,
    /// Bytes of the source's disks that frames to this receiver represented.
    pub(super) bytes_covered: u64,
    /// True if all bytes have arrived: the agent then waits for the receiver.
    pub(super) is_complete: bool,
}

/// Consequences of the agent's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The agent sends, or may stay silent for longer.
    GoOn,
    /// The run gives its place back; the agent has been silent for this time.
    Park(Duration),
    /// The run fails.
    GiveUp,
    /// The agent covered only so many bytes in the last hour.
    TooSlow(u64),
}

/// The agent's silence under one lease.
#[derive(Debug)]
pub(super) struct Silence {
    /// Silence before this lease.
    before: Duration,
    heard_at: Instant,
    moved_at: Instant,
    bytes_wire: u64,
    is_connected: bool,
    hour: (Instant, u64),
    bytes_covered: u64,
    is_complete: bool,
}

impl Silence {
    pub(super) fn new(before: Duration, now: Instant) -> Self {
        Self {
            before,
            heard_at: now,
            moved_at: now,
            bytes_wire: 0,
            is_connected: false,
            hour: (now, 0),
            bytes_covered: 0,
            is_complete: false,
        }
    }

    /// Prepares for a new receiver, which counts from zero and which the agent must first find.
    pub(super) fn new_receiver(&mut self, now: Instant) {
        *self = Self::new(self.before, now);
    }

    pub(super) fn look(&mut self, seen: &Seen, now: Instant) {
        (self.is_connected, self.is_complete) = (seen.is_connected, seen.is_complete);
        self.bytes_covered = seen.bytes_covered;
        if !seen.is_connected {
            return;
        }
        self.heard_at = now;
        let has_moved = seen.bytes_wire != self.bytes_wire;
        self.bytes_wire = seen.bytes_wire;
        if has_moved || seen.is_complete {
            self.moved_at = now;
        }
        if has_moved {
            self.before = Duration::ZERO;
        }
    }

    pub(super) fn verdict(&mut self, limits: &Limits, now: Instant) -> Verdict {
        if self.is_connected {
            self.of_a_connected_one(limits, now)
        } else {
            // An agent that has just received the address gets a moment to connect, however long it was silent before.
            let (here, a_moment) = (now - self.heard_at, limits.park_after.min(limits.patience));
            let silent = self.before + here;
            if silent > limits.patience && here >= a_moment {
                Verdict::GiveUp
            } else if here > limits.park_after {
                Verdict::Park(silent)
            } else {
                Verdict::GoOn
            }
        }
    }

    fn of_a_connected_one(&mut self, limits: &Limits, now: Instant) -> Verdict {
        let still = now - self.moved_at;
        if still > limits.still_after {
            let silent = self.before + still;
            return if silent > limits.patience {
                Verdict::GiveUp
            } else {
                Verdict::Park(silent)
            };
        }
        let (since, before) = self.hour;
        if now - since < HOUR {
            return Verdict::GoOn;
        }
        let came = self.bytes_covered.saturating_sub(before);
        self.hour = (now, self.bytes_covered);
        if came < limits.least_per_hour && !self.is_complete {
            Verdict::TooSlow(came)
        } else {
            Verdict::GoOn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        patience: Duration::from_secs(3600),
        park_after: Duration::from_secs(60),
        still_after: Duration::from_secs(600),
        least_per_hour: 64 << 20,
    };

    const ABSENT: Seen = Seen {
        is_connected: false,
        bytes_wire: 0,
        bytes_covered: 0,
        is_complete: false,
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checks once a second for so long. Returns the first verdict that ends the run here, and its second.
    fn watch(
        before: Duration,
        limits: &Limits,
        lasts: u64,
        seen: impl Fn(u64) -> Seen,
    ) -> Option<(u64, Verdict)> {
        let began = Instant::now();
        let mut silence = Silence::new(before, began);
        (0..lasts).find_map(|second| {
            let now = began + seconds(second);
            silence.look(&seen(second), now);
            let verdict = silence.verdict(limits, now);
            (verdict != Verdict::GoOn).then_some((second, verdict))
        })
    }

    #[test]
    fn a_run_without_an_agent_keeps_its_place_for_a_minute() {
        let ended = watch(Duration::ZERO, &LIMITS, 4000, |_| ABSENT);
        assert_eq!(ended, Some((61, Verdict::Park(seconds(61)))));
    }

    #[test]
    fn silence_counts_over_leases_and_ends_the_run_after_the_patience() {
        let ended = watch(seconds(3000), &LIMITS, 4000, |_| ABSENT);
        assert_eq!(ended, Some((61, Verdict::Park(seconds(3061)))));
        let ended = watch(seconds(3600), &LIMITS, 4000, |_| ABSENT);
        assert_eq!(
            ended,
            Some((60, Verdict::GiveUp)),
            "an agent that was told only now has a moment to come"
        );
    }

    #[test]
    fn a_patience_below_the_minute_is_kept_to() {
        let limits = Limits {
            patience: seconds(5),
            ..LIMITS
        };
        let ended = watch(Duration::ZERO, &limits, 4000, |_| ABSENT);
        assert_eq!(ended, Some((6, Verdict::GiveUp)));
    }

    #[test]
    fn a_connection_without_a_byte_keeps_no_place_for_ever() {
        let connected = Seen {
            is_connected: true,
            ..ABSENT
        };
        let ended = watch(Duration::ZERO, &LIMITS, 4000, |_| connected);
        assert_eq!(ended, Some((601, Verdict::Park(seconds(601)))));
        let ended = watch(seconds(3300), &LIMITS, 4000, |_| connected);
        assert_eq!(ended, Some((601, Verdict::GiveUp)));
    }

    #[test]
    fn bytes_end_the_silence_of_earlier_leases() {
        let ended = watch(seconds(3590), &LIMITS, 4000, |second| Seen {
            is_connected: second < 10,
            bytes_wire: second,
            ..ABSENT
        });
        assert_eq!(ended, Some((70, Verdict::Park(seconds(61)))));
    }

    #[test]
    fn a_trickle_ends_after_an_hour_and_enough_does_not() {
        let trickle = |second: u64, a_second: u64| Seen {
            is_connected: true,
            bytes_wire: second,
            bytes_covered: second * a_second,
            ..ABSENT
        };
        let ended = watch(Duration::ZERO, &LIMITS, 9000, |second| {
            trickle(second, 1000)
        });
        assert_eq!(ended, Some((3600, Verdict::TooSlow(3_600_000))));
        let ended = watch(Duration::ZERO, &LIMITS, 9000, |second| {
            trickle(second, 20_000)
        });
        assert_eq!(ended, None);
    }

    #[test]
    fn an_agent_that_has_sent_all_waits_for_the_receiver_as_long_as_that_takes() {
        let ended = watch(Duration::ZERO, &LIMITS, 9000, |_| Seen {
            is_connected: true,
            is_complete: true,
            ..ABSENT
        });
        assert_eq!(ended, None);
    }
}
