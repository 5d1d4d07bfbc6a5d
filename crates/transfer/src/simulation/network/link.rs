//! A connection: how long bytes take over it, and how each end comes to know that it is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Network, State};

/// As both real transports have it.
const LOST_AFTER: Duration = Duration::from_secs(15);
/// Greatest difference between the two ends' clocks for that.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Sender,
    Receiver,
}

impl End {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u32,
    pub(super) network: Network,
    /// For each end: the connection is over.
    gone: [CancellationToken; 2],
    /// Time at which all bytes that were sent from each end until now are on their way.
    busy_until: Mutex<[Instant; 2]>,
    silent: Mutex<bool>,
    has_carried: AtomicBool,
}

impl Link {
    /// A connection that stands.
    pub(super) fn new(number: u32, network: Network) -> Arc<Self> {
        Arc::new(Self {
            number,
            network,
            gone: [CancellationToken::new(), CancellationToken::new()],
            busy_until: Mutex::new([Instant::now(); 2]),
            silent: Mutex::new(false),
            has_carried: AtomicBool::new(false),
        })
    }

    /// From here on nobody hears it when one of its ends goes.
    pub(super) fn silence(&self) {
        *self.silent.lock().unwrap() = true;
    }

    pub(super) fn gone(&self, end: End) -> &CancellationToken {
        &self.gone[end as usize]
    }

    fn lose(&self, end: End, why: &str) {
        if !self.gone(end).is_cancelled() {
            let number = self.number;
            let state = self.network.state();
            state
                .trace
                .note(|| format!("connection {number} is over for the {end:?}: {why}"));
            drop(state);
            self.gone(end).cancel();
        }
    }

    pub(super) fn reset(&self) {
        self.lose(End::Sender, "reset");
        self.lose(End::Receiver, "reset");
    }

    /// An end that hears nothing takes the connection for lost after a while.
    pub(super) fn notice_silence(self: &Arc<Self>, end: End) {
        let phase = self.network.state().random.up_to(KEEP_ALIVE);
        let (link, began) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move {
            sleep(LOST_AFTER + phase).await;
            let peer_lives = !link.gone(end.other()).is_cancelled();
            let heard = link.network.state().partition().is_none() && peer_lives;
            if !heard {
                let silence = began.elapsed();
                link.lose(end, &format!("nothing heard for {silence:?}"));
            }
        });
    }

    /// One end goes, and the other hears of it, soon or late.
    pub(super) fn leave(self: &Arc<Self>, end: End) {
        self.lose(end, "it left");
        let other = end.other();
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.gone(other).is_cancelled() {
            return;
        }
        let link = Arc::clone(self);
        let latency = self.network.state().shape.latency;
        runtime.spawn(async move {
            sleep(latency).await;
            let is_silent = *link.silent.lock().unwrap();
            if is_silent || link.network.state().partition().is_some() {
                link.notice_silence(other);
            } else {
                link.lose(other, "the other end left");
            }
        });
    }

    /// Returns the time at which bytes that are sent now arrive.
    pub(super) fn arrival(&self, from: End, bytes: usize) -> Instant {
        let shape = self.network.state().shape;
        let mut busy_until = self.busy_until.lock().unwrap();
        let busy_until = &mut busy_until[from as usize];
        let takes = Duration::from_secs_f64(bytes as f64 / shape.bytes_per_sec as f64);
        *busy_until = (*busy_until).max(Instant::now()) + takes;
        *busy_until + shape.latency
    }

    /// Returns a piece of a data stream as it arrives; `None` if the stream breaks under it.
    pub(super) fn carry(&self, piece: Bytes) -> Option<Bytes> {
        let mut state = self.network.state();
        state.data_bytes += piece.len() as u64;
        if !self.has_carried.swap(true, Ordering::Relaxed) {
            state.connections_used += 1;
        }
        let is_reached = |after: &mut Option<usize>| reached(after, piece.len());
        if is_reached(&mut state.cut_after).is_some() {
            drop(state);
            self.reset();
            return None;
        }
        if is_reached(&mut state.tear_after).is_some() {
            return None;
        }
        let Some(at) = is_reached(&mut state.flip_after) else {
            return Some(piece);
        };
        state.flips += 1;
        Some(self.flip(&mut state, &piece, at))
    }

    /// Returns a piece of a control stream as it arrives.
    pub(super) fn carry_control(&self, piece: Bytes) -> Bytes {
        let mut state = self.network.state();
        match reached(&mut state.flip_control_after, piece.len()) {
            Some(at) => self.flip(&mut state, &piece, at),
            None => piece,
        }
    }

    fn flip(&self, state: &mut State, piece: &[u8], at: usize) -> Bytes {
        let mut bytes = piece.to_vec();
        bytes[at] ^= 1 << state.random.below(8);
        let number = self.number;
        state
            .trace
            .note(|| format!("a bit flips on connection {number}"));
        bytes.into()
    }
}

/// Returns where in the next so many bytes something is to happen, if it is there; else it is so many bytes nearer.
fn reached(after: &mut Option<usize>, bytes: usize) -> Option<usize> {
    match after {
        Some(left) if *left < bytes => after.take(),
        Some(left) => {
            *left -= bytes;
            None
        }
        None => None,
    }
}
