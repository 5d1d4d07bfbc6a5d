//! A limit that several transfers share.
//!
//! Start-time fair queueing: a piece that waits is stamped with how far its transfer has come, in bytes, and the lowest
//! stamp goes first. So transfers that always have something to send get the same, however large their pieces are; what
//! one does not use goes to the others at once, and no more of it is kept than a burst: somebody who comes with its
//! next piece a moment late has not lost its turn.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use domain::rate::Rate;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{BURST, Schedule, piece_of};

/// A limit for all transfers that are given it. Clones are the same limit.
#[derive(Debug, Clone)]
pub struct SharedLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rate: Rate,
    epoch: Instant,
    queue: Mutex<Queue>,
    /// Told when another may be the first.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    schedule: Schedule,
    /// The highest stamp that was let through. Whoever comes back after a pause goes on from a burst before.
    clock: u64,
    waiting: BTreeSet<Place>,
    members: u64,
    joined: u64,
}

/// A stamp, and whose it is.
type Place = (u64, u64);

/// One transfer's part in a shared limit. It pays for one piece at a time.
#[derive(Debug)]
pub(super) struct Share {
    shared: Arc<Shared>,
    number: u64,
    /// The stamp of its next piece, unless the clock has gone on.
    next: AtomicU64,
}

impl SharedLimit {
    /// A limit that nobody uses yet.
    pub fn new(rate: Rate) -> Self {
        Self(Arc::new(Shared {
            rate,
            epoch: Instant::now(),
            queue: Mutex::default(),
            moved: Notify::new(),
        }))
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock can panic")
    }

    /// Bytes of a burst.
    fn burst(&self) -> u64 {
        (self.rate.bytes_per_sec() as f64 * BURST.as_secs_f64()) as u64
    }
}

impl Share {
    pub(super) fn new(limit: &SharedLimit) -> Self {
        let shared = Arc::clone(&limit.0);
        let mut queue = shared.queue();
        queue.members += 1;
        queue.joined += 1;
        let number = queue.joined;
        drop(queue);
        Self {
            shared,
            number,
            next: AtomicU64::new(0),
        }
    }

    /// Most bytes to pay for at once: the more there are, the smaller, so that each has its turn as often.
    pub(super) fn piece(&self) -> usize {
        piece_of(self.shared.rate.bytes_per_sec() / self.shared.queue().members.max(1))
    }

    /// Waits until `bytes` may be sent.
    pub(super) async fn pay(&self, bytes: usize) {
        let waiting = Waiting::begin(self, bytes);
        loop {
            // Listens before it looks, so that no move is missed in between.
            let moved = self.shared.moved.notified();
            match waiting.try_to_go(bytes) {
                Turn::Mine => return,
                Turn::In(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = moved => {}
                },
                Turn::Another => moved.await,
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shared.queue().members -= 1;
    }
}

/// A piece that waits; one that is given up leaves its place.
struct Waiting<'a> {
    shared: &'a Shared,
    place: Place,
}

enum Turn {
    Mine,
    In(std::time::Duration),
    Another,
}

impl<'a> Waiting<'a> {
    fn begin(share: &'a Share, bytes: usize) -> Self {
        let mut queue = share.shared.queue();
        let earliest = queue.clock.saturating_sub(share.shared.burst());
        let stamp = share.next.load(Ordering::Relaxed).max(earliest);
        share.next.store(stamp + bytes as u64, Ordering::Relaxed);
        let place = (stamp, share.number);
        queue.waiting.insert(place);
        drop(queue);
        Self {
            shared: &share.shared,
            place,
        }
    }

    fn try_to_go(&self, bytes: usize) -> Turn {
        let mut queue = self.shared.queue();
        if queue.waiting.first() != Some(&self.place) {
            return Turn::Another;
        }
        let rate = self.shared.rate.bytes_per_sec();
        match queue.schedule.pay(self.shared.epoch.elapsed(), bytes, rate) {
            Ok(()) => {
                queue.clock = queue.clock.max(self.place.0);
                Turn::Mine
            }
            Err(wait) => Turn::In(wait),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.queue().waiting.remove(&self.place);
        self.shared.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::super::Pacer;
    use super::*;

    /// Sends for ten seconds in pieces of these sizes, one transfer for each, and answers with what each has sent.
    async fn send(rate: u64, pieces: &[usize]) -> Vec<u64> {
        let shared = SharedLimit::new(Rate::from_bytes_per_sec(rate).unwrap());
        let sending: Vec<_> = pieces
            .iter()
            .map(|&piece| {
                let pacer = Pacer::new(watch::channel(None).1, Some(&shared));
                tokio::spawn(async move {
                    let (began, mut sent) = (Instant::now(), 0);
                    while began.elapsed() < Duration::from_secs(10) {
                        pacer.pay(piece).await;
                        sent += piece as u64;
                    }
                    sent
                })
            })
            .collect();
        let mut sent = Vec::new();
        for sending in sending {
            sent.push(sending.await.unwrap());
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn large_pieces_get_no_more_than_small_ones() {
        let sent = send(3_000_000, &[1_000, 20_000, 7_777]).await;
        for bytes in &sent {
            assert!(bytes.abs_diff(10_000_000) <= 500_000, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_its_place_holds_up_nobody() {
        let shared = SharedLimit::new(Rate::from_bytes_per_sec(1_000).unwrap());
        let (first, second) = (Share::new(&shared), Share::new(&shared));
        first.pay(100_000).await;
        let given_up = tokio::time::timeout(Duration::from_secs(1), first.pay(1)).await;
        assert!(given_up.is_err(), "the first piece costs a hundred seconds");
        let second = tokio::time::timeout(Duration::from_secs(110), second.pay(1)).await;
        assert!(second.is_ok());
    }
}
