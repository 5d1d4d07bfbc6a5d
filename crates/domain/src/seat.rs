//! The choice between several agents that call with one key.
//!
//! A state directory that was cloned with its server makes two agents with one key. The gateway accepts one of them as
//! the source, so that no copy mixes two servers. An agent that restarts on the same machine and directory takes over
//! at once: the lock of the directory proves that its predecessor has ended. An agent that calls from elsewhere may be
//! the same server after a reboot, or a clone. It waits until its predecessor has been silent for a while. If the
//! predecessor calls again meanwhile, the waiting agent is a clone.

use std::time::Duration;

use crate::source::OFFLINE_AFTER;

/// Silence required of the accepted agent, counted from the first call of the agent from elsewhere. A gateway wakes the
/// accepted agent meanwhile.
pub const GRACE: Duration = Duration::from_secs(15);

/// Time after a clone's last call during which the clone is reported.
pub const TOLD_FOR: Duration = Duration::from_secs(900);

/// Difference between two clocks from which on it is reported. Certificates and signatures tolerate minutes.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// The facts about the source when an agent calls.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// Instance of the accepted agent. `None` before the first agent that reports its instance.
    pub instance: Option<&'a str>,
    /// Place at which the accepted agent runs.
    pub place: Option<&'a str>,
    /// Time since the accepted agent's last call.
    pub silent: Duration,
    /// The last other instance that called, and the time since its first call.
    pub rival: Option<(&'a str, Duration)>,
    /// True if the accepted agent has called after the other.
    pub is_cloned: bool,
    /// True if a run of the source is under way.
    pub has_run: bool,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seating {
    /// The caller is the accepted agent.
    Holds,
    /// The caller is the accepted agent from now on.
    TakesOver {
        /// True if the caller is the same agent, restarted.
        is_restart: bool,
    },
    /// The caller is not accepted now; the accepted agent may be gone.
    Waits,
    /// The caller is not accepted: two servers have one key.
    IsClone,
}

/// Decides about a call of the agent `instance` from `place`.
pub fn seating(seat: &Seat<'_>, instance: &str, place: &str) -> Seating {
    let Some(holder) = seat.instance else {
        return Seating::TakesOver { is_restart: false };
    };
    if holder == instance {
        return Seating::Holds;
    }
    if seat.place == Some(place) {
        return Seating::TakesOver { is_restart: true };
    }
    let is_offline = seat.silent >= OFFLINE_AFTER;
    if seat.is_cloned {
        // A partial copy belongs to the server that began it.
        return if is_offline && !seat.has_run {
            Seating::TakesOver { is_restart: false }
        } else {
            Seating::IsClone
        };
    }
    let has_waited = seat
        .rival
        .is_some_and(|(rival, since)| rival == instance && since >= GRACE && seat.silent >= since);
    if is_offline || has_waited {
        Seating::TakesOver { is_restart: false }
    } else {
        Seating::Waits
    }
}

/// Returns the warning for the owner of a source that works: two servers with one key, or a clock that is off.
/// `clock_ahead_ms` is the agent's clock less the gateway's.
pub fn warning(rival_host: Option<&str>, clock_ahead_ms: Option<i64>) -> Option<String> {
    let clone = rival_host.map(|host| {
        format!(
            "Two servers call with the same key: this source was cloned with its agent's state directory. The first is listened to, and the other, \
             on host {host:?}, is refused. Remove the state directory of the other (--state-dir), and register it anew."
        )
    });
    let clock = clock_ahead_ms.and_then(clock_off);
    let told: Vec<String> = clone.into_iter().chain(clock).collect();
    (!told.is_empty()).then(|| told.join(" "))
}

/// Returns a sentence about a source's clock that is off the gateway's. `None` if the difference is within tolerance.
pub fn clock_off(ahead_ms: i64) -> Option<String> {
    let off = Duration::from_millis(ahead_ms.unsigned_abs());
    (off >= CLOCK_TOLERANCE).then(|| {
        let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
        format!(
            "The clock of the source's server is {} {direction} the gateway's: set the one that is wrong (NTP). From an hour on they can't connect.",
            spoken(off)
        )
    })
}

/// Returns a duration for people, such as `2 h 5 min`.
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(silent: Duration) -> Seat<'static> {
        Seat {
            instance: Some("first"),
            place: Some("here"),
            silent,
            rival: None,
            is_cloned: false,
            has_run: true,
        }
    }

    #[test]
    fn the_first_and_whoever_starts_again_in_its_place_are_listened_to() {
        let nobody = Seat {
            instance: None,
            place: None,
            ..held(SECOND)
        };
        assert_eq!(
            seating(&nobody, "first", "here"),
            Seating::TakesOver { is_restart: false }
        );
        assert_eq!(seating(&held(SECOND), "first", "here"), Seating::Holds);
        assert_eq!(
            seating(&held(SECOND), "second", "here"),
            Seating::TakesOver { is_restart: true }
        );
    }

    #[test]
    fn one_that_calls_from_elsewhere_waits_until_the_first_was_silent_meanwhile() {
        let taken = Seating::TakesOver { is_restart: false };
        let called = |silent, since| Seat {
            rival: Some(("second", since)),
            ..held(silent)
        };
        assert_eq!(seating(&held(SECOND), "second", "there"), Seating::Waits);
        let (short, long) = (14 * SECOND, 16 * SECOND);
        assert_eq!(
            seating(&called(short, short), "second", "there"),
            Seating::Waits
        );
        assert_eq!(seating(&called(long, long), "second", "there"), taken);
        assert_eq!(
            seating(&called(SECOND, long), "second", "there"),
            Seating::Waits
        );
        assert_eq!(
            seating(&called(long, long), "third", "there"),
            Seating::Waits,
            "another than the one that waited"
        );
        assert_eq!(seating(&held(OFFLINE_AFTER), "second", "there"), taken);
    }

    #[test]
    fn a_clone_is_not_listened_to_while_a_copy_of_the_first_is_under_way() {
        let cloned = Seat {
            is_cloned: true,
            ..held(2 * OFFLINE_AFTER)
        };
        assert_eq!(seating(&cloned, "second", "there"), Seating::IsClone);
        let at_rest = Seat {
            has_run: false,
            ..cloned
        };
        assert_eq!(
            seating(&at_rest, "second", "there"),
            Seating::TakesOver { is_restart: false }
        );
        let heard = Seat {
            silent: SECOND,
            ..at_rest
        };
        assert_eq!(seating(&heard, "second", "there"), Seating::IsClone);
    }

    #[test]
    fn a_clock_is_named_with_how_far_it_is_off() {
        assert_eq!(clock_off(29_999), None);
        assert_eq!(clock_off(-29_999), None);
        let behind = clock_off(-7_200_000).unwrap();
        assert!(
            behind.contains("2 h 0 min behind the gateway's"),
            "{behind}"
        );
        let ahead = clock_off(90_000).unwrap();
        assert!(
            ahead.contains("1 min 30 s ahead of the gateway's"),
            "{ahead}"
        );
        assert!(clock_off(i64::MIN).is_some());
        assert_eq!(warning(None, Some(5)), None);
        assert!(
            warning(Some("b"), Some(90_000))
                .unwrap()
                .contains("\"b\", is refused")
        );
    }
}
