//! Pacing: no more bytes a second than the job's `BandwidthLimit`.

use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// How far sends may run ahead of the limit: short enough that the limit holds within any second.
const BURST: Duration = Duration::from_millis(50);

/// A pacer that all streams of a run share. The limit may change at any time.
#[derive(Debug)]
pub struct Pacer {
    limit: watch::Receiver<Option<u64>>,
    /// When the bytes granted so far are over at the limit.
    paid_until: Mutex<Instant>,
}

impl Pacer {
    /// A pacer for a limit in bytes a second; `None` is no limit.
    pub fn new(limit: watch::Receiver<Option<u64>>) -> Self {
        Self {
            limit,
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` may be sent.
    pub async fn pay(&self, bytes: usize) {
        let Some(limit) = *self.limit.borrow() else {
            return;
        };
        let cost = Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
        let wait_until = {
            let mut paid_until = self.paid_until.lock().await;
            let now = Instant::now();
            let start = (*paid_until).max(now.checked_sub(BURST).unwrap_or(now));
            *paid_until = start + cost;
            start
        };
        tokio::time::sleep_until(wait_until).await;
    }
}
