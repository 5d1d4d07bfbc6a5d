//! Admission of connections to a listener, and the time that each has to prove its identity.
//!
//! Every listener of Wherry that is open to unknown callers gives its connections places at a [`Door`]. A connection
//! begins as a stranger. It becomes a known caller's when it has proved its identity by a client certificate or a valid
//! signature. Strangers have few places of their own and known callers have the rest, so strangers never keep known
//! callers out. When the strangers' places are full, the oldest stranger is ended. An honest caller proves its identity
//! in milliseconds, so a connection that waits in silence goes first.
//!
//! [`places`] decides and does no I/O. [`tally`] counts the ended connections, and logs them at most once a minute.

mod places;
mod tally;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use telemetry::{Gauge, Metric};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use places::Places;
use tally::Tally;

pub use places::{Limits, Network};
pub use tally::Reason;

/// The places of one listener, or of several that share them. Clones are the same door.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    occupancy: Mutex<Occupancy>,
    tally: Tally,
    strangers: Gauge,
    known: Gauge,
}

#[derive(Debug)]
struct Occupancy {
    places: Places,
    /// Ends a connection that must give its place up, with the reason.
    ends: HashMap<u64, Arc<End>>,
}

#[derive(Debug, Default)]
struct End {
    given_up: CancellationToken,
    reason: Mutex<Option<Reason>>,
}

impl Door {
    /// A door with all its places free. Metrics and logs know it by `name`.
    pub fn new(name: &'static str, limits: Limits) -> Self {
        let gauge = |caller: &'static str| {
            telemetry::gauge(
                Metric::Connections,
                &[("listener", name), ("caller", caller)],
            )
        };
        Self(Arc::new(Inner {
            occupancy: Mutex::new(Occupancy {
                places: Places::new(limits),
                ends: HashMap::new(),
            }),
            tally: Tally::new(name),
            strangers: gauge("stranger"),
            known: gauge("known"),
        }))
    }

    /// Gives a stranger's place to a connection from `address`. Ends the oldest stranger if no place was left.
    pub fn enter(&self, address: IpAddr) -> Place {
        let end = Arc::new(End::default());
        let mut occupancy = self.0.lock();
        let (id, displaced) = occupancy.places.enter(Network::of(address));
        occupancy.ends.insert(id, Arc::clone(&end));
        self.0.give_up(&mut occupancy, displaced);
        drop(occupancy);
        self.0.strangers.increment(1.0);
        Place {
            door: self.clone(),
            id,
            since: Instant::now(),
            is_known: AtomicBool::new(false),
            end,
        }
    }

    /// Returns the number of connections that have not proved their identity.
    pub fn strangers(&self) -> usize {
        self.0.lock().places.strangers()
    }

    /// Returns the number of ended connections so far, by reason.
    pub fn ended(&self) -> Vec<(Reason, u64)> {
        self.0.tally.totals()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Occupancy> {
        self.occupancy
            .lock()
            .expect("no holder of this lock can panic")
    }

    fn give_up(&self, occupancy: &mut Occupancy, displaced: Option<(u64, Reason)>) {
        if let Some((id, reason)) = displaced
            && let Some(end) = occupancy.ends.get(&id)
        {
            *end.reason.lock().expect("no holder of this lock can panic") = Some(reason);
            end.given_up.cancel();
            self.tally.count(reason);
        }
    }
}

/// A connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    door: Door,
    id: u64,
    since: Instant,
    /// Stays set after the place was given up.
    is_known: AtomicBool,
    end: Arc<End>,
}

impl Place {
    /// Returns the time at which the connection was accepted.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Moves the connection, which has been proved to be `caller`'s, to the known callers. If a caller exceeds its
    /// share, its oldest connection is ended. Returns false while all known places are taken: the connection then keeps
    /// its stranger's place.
    pub fn prove(&self, caller: &str) -> bool {
        self.become_known(Some(caller))
    }

    /// Moves the connection to the known callers, without a share: the operator has named its peer, or there is only
    /// one caller.
    pub fn trust(&self) -> bool {
        self.become_known(None)
    }

    fn become_known(&self, caller: Option<&str>) -> bool {
        if self.is_known() {
            return true;
        }
        let inner = &self.door.0;
        let mut occupancy = inner.lock();
        let Some(displaced) = occupancy.places.prove(self.id, caller) else {
            return false;
        };
        inner.give_up(&mut occupancy, displaced);
        self.is_known.store(true, Ordering::Release);
        drop(occupancy);
        inner.strangers.decrement(1.0);
        inner.known.increment(1.0);
        true
    }

    /// Returns true if the connection has proved its identity.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Waits until the connection must end in favour of another, and returns the reason.
    pub async fn given_up(&self) -> Reason {
        self.end.given_up.cancelled().await;
        let reason = self.end.reason.lock();
        reason
            .expect("no holder of this lock can panic")
            .unwrap_or(Reason::Crowded)
    }

    /// Runs one step of identifying the caller, which must end within `limit` of the connection's acceptance. Returns
    /// `None` if the step did not, or if the place was given up meanwhile: the caller then drops the connection.
    pub async fn in_time<T>(&self, limit: Duration, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.given_up() => None,
            done = step => Some(done),
            () = tokio::time::sleep_until(self.since + limit) => {
                self.ended_for(Reason::Silent);
                None
            }
        }
    }

    /// Counts a connection that its listener has decided to end.
    pub fn ended_for(&self, reason: Reason) {
        self.door.0.tally.count(reason);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let inner = &self.door.0;
        let mut occupancy = inner.lock();
        occupancy.ends.remove(&self.id);
        occupancy.places.leave(self.id);
        drop(occupancy);
        if self.is_known() {
            inner.known.decrement(1.0);
        } else {
            inner.strangers.decrement(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn door(strangers: usize) -> Door {
        Door::new(
            "test",
            Limits {
                strangers,
                strangers_per_address: strangers,
                known: 2,
                known_per_caller: 2,
            },
        )
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_oldest_stranger_goes_and_who_is_known_stays() {
        let door = door(2);
        let known = door.enter(ADDRESS);
        assert!(known.prove("one"));
        let (first, second) = (door.enter(ADDRESS), door.enter(ADDRESS));
        let third = door.enter(ADDRESS);
        assert!(first.given_up().now_or_never().is_some());
        for stays in [&known, &second, &third] {
            assert_eq!(stays.given_up().now_or_never(), None);
        }
        let ended: u64 = door.ended().iter().map(|(_, count)| count).sum();
        assert_eq!(ended, 1);
    }

    #[test]
    fn places_are_free_again_when_their_connections_end() {
        let door = door(1);
        for _ in 0..3 {
            let place = door.enter(ADDRESS);
            assert!(place.prove("one") && place.is_known());
            drop(place);
            assert_eq!(door.strangers(), 0);
        }
        let ended: u64 = door.ended().iter().map(|(_, count)| count).sum();
        assert_eq!(ended, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_takes_too_long_ends_and_is_counted_as_silence() {
        let door = door(1);
        let place = door.enter(ADDRESS);
        let limit = Duration::from_secs(5);
        assert_eq!(place.in_time(limit, async { 7 }).await, Some(7));
        let began = Instant::now();
        let step = place.in_time(limit, std::future::pending::<()>()).await;
        assert_eq!((step, began.elapsed()), (None, limit));
        assert!(door.ended().contains(&(Reason::Silent, 1)));
    }
}
