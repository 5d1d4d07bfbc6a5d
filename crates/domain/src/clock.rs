//! The source of time. Code that reads the time takes a [`Clock`], so that tests can advance it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::Timestamp;

/// A source of wall-clock and monotonic time.
///
/// Only Postgres compares wall clocks. A process uses [`Clock::now`] for request time stamps (±15 minutes) and for
/// times that people read. It uses [`Clock::monotonic`] for everything that it waits for.
pub trait Clock: Debug + Send + Sync {
    /// The wall clock, UTC.
    fn now(&self) -> Timestamp;
    /// The monotonic clock.
    fn monotonic(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from(chrono::Utc::now())
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is advanced.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    wall: Timestamp,
    offset: std::sync::Mutex<Duration>,
}

impl ManualClock {
    /// A clock that shows `wall`.
    pub fn at(wall: Timestamp) -> Self {
        Self {
            start: Instant::now(),
            wall,
            offset: std::sync::Mutex::new(Duration::ZERO),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        *self
            .offset
            .lock()
            .expect("no holder of this lock can panic") += by;
    }

    fn offset(&self) -> Duration {
        *self
            .offset
            .lock()
            .expect("no holder of this lock can panic")
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.wall + self.offset()
    }

    fn monotonic(&self) -> Instant {
        self.start + self.offset()
    }
}
