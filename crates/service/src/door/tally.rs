//! Counts the ended connections, and logs them at most once a minute.

use std::sync::Mutex;
use std::time::Duration;

use telemetry::{Counter, Metric};
use tokio::time::Instant;

/// Shortest time between two lines of one door in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Reasons for which a connection was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The strangers' places were full, and it was the oldest stranger.
    Crowded,
    /// Its address had as many strangers as one address may have, and it was the oldest of them.
    Address,
    /// Its caller had as many connections as one caller may have, and it was the oldest of them.
    Caller,
    /// It did not identify itself or send a request in time.
    Silent,
    /// It had no request for a while. This is how most connections end, so it is not logged.
    Idle,
    /// Its reader takes a download too slowly.
    Slow,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::Crowded,
        Self::Address,
        Self::Caller,
        Self::Silent,
        Self::Idle,
        Self::Slow,
    ];

    /// Returns the reason with this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Returns the word that metrics use for the reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Address => "address",
            Self::Caller => "caller",
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Slow => "slow",
        }
    }
}

/// Number of connections that one door has ended, by reason.
#[derive(Debug)]
pub(super) struct Tally {
    door: &'static str,
    counters: Vec<Counter>,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    totals: [u64; Reason::ALL.len()],
    /// Totals and time of the latest log line.
    logged: [u64; Reason::ALL.len()],
    logged_at: Option<Instant>,
}

impl Tally {
    pub fn new(door: &'static str) -> Self {
        let counter = |reason: Reason| {
            let labels = [("listener", door), ("reason", reason.as_str())];
            telemetry::counter(Metric::ConnectionsEnded, &labels)
        };
        Self {
            door,
            counters: Reason::ALL.into_iter().map(counter).collect(),
            numbers: Mutex::default(),
        }
    }

    pub fn count(&self, reason: Reason) {
        self.counters[reason as usize].increment(1);
        let mut numbers = self.lock();
        numbers.totals[reason as usize] += 1;
        let new = (reason != Reason::Idle)
            .then(|| numbers.due(Instant::now()))
            .flatten();
        drop(numbers);
        if let Some([crowded, address, caller, silent, _, slow]) = new {
            tracing::warn!(
                door = self.door,
                crowded,
                address,
                caller,
                silent,
                slow,
                "connections were ended to keep places for others"
            );
        }
    }

    pub fn totals(&self) -> Vec<(Reason, u64)> {
        Reason::ALL.into_iter().zip(self.lock().totals).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Numbers> {
        self.numbers
            .lock()
            .expect("no holder of this lock can panic")
    }
}

impl Numbers {
    /// Returns the numbers since the latest log line, if the next one is due.
    fn due(&mut self, now: Instant) -> Option<[u64; Reason::ALL.len()]> {
        let is_early = |logged_at| now.duration_since(logged_at) < LOG_INTERVAL;
        if self.logged_at.is_some_and(is_early) {
            return None;
        }
        let mut new = self.totals;
        for (new, logged) in new.iter_mut().zip(self.logged) {
            *new -= logged;
        }
        self.logged = self.totals;
        self.logged_at = Some(now);
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_logged_once_a_minute_and_none_is_lost() {
        let mut numbers = Numbers::default();
        let now = Instant::now();
        let mut logged = 0;
        for second in 0..=120 {
            numbers.totals[Reason::Silent as usize] += 1;
            if let Some(new) = numbers.due(now + Duration::from_secs(second)) {
                assert_eq!(second % 60, 0);
                logged += new[Reason::Silent as usize];
            }
        }
        assert_eq!(logged, 121);
    }

    #[test]
    fn reasons_stand_in_the_order_of_their_numbers() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
