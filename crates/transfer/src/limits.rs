//! Pacing: no more bytes a second than the job's `BandwidthLimit`, and than a limit that several transfers share.

mod shared;

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use shared::Share;
pub use shared::SharedLimit;

/// Lead that sends may take over the limit after a pause: short enough that the limit holds within any second.
const BURST: Duration = Duration::from_millis(50);

/// Time that one payment covers, so that a change of the limit is felt at once.
const PIECE: Duration = Duration::from_millis(25);
const LEAST_PIECE: usize = 4 << 10;
pub(crate) const LARGEST_PIECE: usize = 256 << 10;

/// A pacer that all streams of a run share. The limit may change at any time.
#[derive(Debug)]
pub struct Pacer {
    limit: watch::Receiver<Option<u64>>,
    epoch: Instant,
    schedule: Mutex<Schedule>,
    /// One stream waits for the schedule, the others behind it, in the order in which they came.
    turn: Semaphore,
    share: Option<Share>,
}

impl Pacer {
    /// A pacer for a limit in bytes a second, `None` for no limit, under another that it shares.
    pub fn new(limit: watch::Receiver<Option<u64>>, shared: Option<&SharedLimit>) -> Self {
        Self {
            limit,
            epoch: Instant::now(),
            schedule: Mutex::default(),
            turn: Semaphore::new(1),
            share: shared.map(Share::new),
        }
    }

    /// Most bytes to pay for, and to send, at once; `None` is no limit.
    pub fn piece(&self) -> Option<usize> {
        let own = self.limit.borrow().map(piece_of);
        let shared = self.share.as_ref().map(Share::piece);
        own.into_iter().chain(shared).min()
    }

    /// Waits until `bytes` may be sent.
    pub async fn pay(&self, bytes: usize) {
        if self.share.is_none() && self.limit.borrow().is_none() {
            return;
        }
        let _turn = self.turn.acquire().await;
        self.keep_own_limit(bytes).await;
        if let Some(share) = &self.share {
            share.pay(bytes).await;
        }
    }

    async fn keep_own_limit(&self, bytes: usize) {
        let mut limit = self.limit.clone();
        loop {
            let Some(rate) = *limit.borrow_and_update() else {
                return;
            };
            let now = self.epoch.elapsed();
            let wait = self
                .schedule
                .lock()
                .expect("no holder of this lock can panic")
                .pay(now, bytes, rate);
            let Err(wait) = wait else { return };
            // Another limit is another price; one that nobody can change any more is only slept on.
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                Ok(()) = limit.changed() => {}
            }
        }
    }
}

fn piece_of(rate: u64) -> usize {
    let bytes = usize::try_from(rate / (1000 / PIECE.as_millis() as u64)).unwrap_or(usize::MAX);
    bytes.clamp(LEAST_PIECE, LARGEST_PIECE)
}

/// The arithmetic of a pacer: when the bytes that were let through so far are over at the limit. Times count from any
/// fixed moment.
#[derive(Debug, Default)]
struct Schedule {
    paid_until: Duration,
}

impl Schedule {
    /// Lets `bytes` through at `now`, or says how long to wait before asking again.
    fn pay(&mut self, now: Duration, bytes: usize, rate: u64) -> Result<(), Duration> {
        if self.paid_until > now {
            return Err(self.paid_until - now);
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        self.paid_until = self.paid_until.max(now.saturating_sub(BURST)) + cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends as fast as the schedule lets it until `end`; answers with the bytes.
    fn send(schedule: &mut Schedule, now: &mut Duration, end: Duration, rate: u64) -> u64 {
        let mut sent = 0;
        while *now < end {
            match schedule.pay(*now, piece_of(rate), rate) {
                Ok(()) => sent += piece_of(rate) as u64,
                Err(wait) => *now += wait,
            }
        }
        sent
    }

    proptest! {
        /// Ten seconds at one rate and ten at another: each within 5 % of what it should be, and no pause at the
        /// change.
        #[test]
        fn a_limit_holds_and_changes_without_a_dip(first in 1_000_000_u64..2_000_000_000, second in 1_000_000_u64..2_000_000_000) {
            let mut schedule = Schedule::default();
            let mut now = Duration::ZERO;
            for (rate, end) in [(first, 10), (second, 20)] {
                let sent = send(&mut schedule, &mut now, Duration::from_secs(end), rate);
                let wanted = rate * 10;
                prop_assert!(sent.abs_diff(wanted) <= wanted / 20, "{sent} bytes of {wanted}");
                let half_a_second = Duration::from_secs(end) + Duration::from_millis(500);
                prop_assert!(now <= half_a_second, "the next send waits until {now:?}");
            }
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut schedule = Schedule::default();
        let mut now = Duration::from_secs(100);
        let end = now + Duration::from_secs(1);
        let sent = send(&mut schedule, &mut now, end, 10_000_000);
        assert!(sent <= 11_000_000, "{sent} bytes in a second of 10,000,000");
    }

    #[tokio::test]
    async fn a_tight_limit_that_is_lifted_lets_go_at_once() {
        let (limit, watched) = watch::channel(Some(1));
        let pacer = Pacer::new(watched, None);
        pacer.pay(1 << 20).await;
        let waiting = pacer.pay(1 << 20);
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(
            early.is_err(),
            "a mebibyte at a byte a second takes its time"
        );
        limit.send_replace(None);
        let lifted = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        assert!(lifted.is_ok());
        assert_eq!(pacer.piece(), None);
    }
}
