//! Under way: whether the transport still serves, or the other one would serve better.
//!
//! A connection over which nothing is heard any more, or whose rate has fallen to less than half, and any other now and
//! then, makes the sender try both transports afresh, beside the transfer that goes on. It moves only to a transport
//! that answers where the present one does not, or that is clearly faster in a probe of both. What slows down the
//! source, the receiver or both transports alike is no reason to move, since a probe shows no difference. Each
//! measurement without a move doubles the pause until the next.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use transport::{Connection as _, Kind, Transport};

use super::choice::{self, Connected, Probed, Reached};
use super::{Choice, Preference, Reason, SendConfig, SendProgress};

/// Between two looks.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Looks in a row that tell of trouble. In so much time a connection that lives has shown that it does, also when it is
/// quiet.
const SAMPLES: u32 = 3;

/// No measurement sooner than this after a connection has begun: the rate of its beginning says little.
const FIRST_PAUSE: Duration = Duration::from_secs(8);
/// After a move, so that two transports that are much the same don't alternate.
const PAUSE_AFTER_MOVE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Time after which both are measured though nothing is amiss.
const ROUTINE: Duration = Duration::from_secs(120);

/// The reason why both are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeReason {
    /// Nothing comes from the receiver any more.
    Silent,
    /// It carries less than half of what it did, or it was not looked at for long.
    Slow,
}

/// The samples so far.
#[derive(Debug)]
struct Watch {
    wire: u64,
    heard: Option<u64>,
    /// Most bytes in a look.
    best: u64,
    slow_samples: u32,
    silent_samples: u32,
    pause: Duration,
    next: Duration,
    routine: Duration,
}

impl Watch {
    fn new(has_moved: bool) -> Self {
        let pause = if has_moved {
            PAUSE_AFTER_MOVE
        } else {
            FIRST_PAUSE
        };
        Self {
            wire: 0,
            heard: None,
            best: 0,
            slow_samples: 0,
            silent_samples: 0,
            pause,
            next: pause,
            routine: ROUTINE,
        }
    }

    /// One look: bytes that the connection has taken so far, and how often the receiver was heard, where the transport
    /// knows.
    fn sample(&mut self, now: Duration, wire: u64, heard: Option<u64>) -> Option<ProbeReason> {
        let taken = wire.saturating_sub(self.wire);
        let is_silent = heard.is_some() && heard == self.heard;
        self.best = self.best.max(taken);
        self.slow_samples = in_a_row(self.slow_samples, taken < self.best / 2);
        self.silent_samples = in_a_row(self.silent_samples, is_silent);
        (self.wire, self.heard) = (wire, heard);
        if self.silent_samples >= SAMPLES {
            // Trying to connect costs nothing, and whoever is silent for good breaks soon.
            self.silent_samples = 0;
            return Some(ProbeReason::Silent);
        }
        let is_due = self.slow_samples >= SAMPLES || now >= self.routine;
        if !is_due || now < self.next {
            return None;
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.next = now + self.pause;
        self.routine = now + ROUTINE.max(self.pause);
        // What it carries now is what it is measured by from here on.
        (self.best, self.slow_samples) = (0, 0);
        Some(ProbeReason::Slow)
    }
}

fn in_a_row(samples: u32, is_so: bool) -> u32 {
    if is_so { samples + 1 } else { 0 }
}

/// Ends when the other transport would serve better, with a connection over it.
pub(super) async fn until_another_serves_better<T: Transport>(
    network: &T,
    client: &T::Connection,
    present: Choice,
    config: &SendConfig,
    progress: watch::Receiver<SendProgress>,
) -> (Connected<T>, Choice) {
    if let Preference::Pinned(_) = config.transport {
        return std::future::pending().await;
    }
    let began = Instant::now();
    let mut watch = Watch::new(present.reason.is_a_move());
    loop {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        let seen = progress.borrow().clone();
        let Some(why) = watch.sample(began.elapsed(), seen.bytes_wire, client.packets_received())
        else {
            continue;
        };
        let left = seen.bytes_total.saturating_sub(seen.bytes_durable);
        if let Some(better) = try_both(network, why, present, config, left).await {
            return better;
        }
    }
}

async fn try_both<T: Transport>(
    network: &T,
    why: ProbeReason,
    present: Choice,
    config: &SendConfig,
    bytes_left: u64,
) -> Option<(Connected<T>, Choice)> {
    if why == ProbeReason::Slow && !choice::may_measure(config, bytes_left) {
        return None;
    }
    let mut reached = choice::reach_both(network, config).await.ok()?;
    let transport = present.transport.other();
    let moved = |reached: Reached<T>, reason| {
        let other = reached.take(transport)?;
        Some((other, Choice { transport, reason }))
    };
    match (&reached.quic, &reached.tcp) {
        (Some(_), Some((tcp, _))) => {
            if why == ProbeReason::Silent || !choice::is_short(config, tcp) {
                return None;
            }
            // The processors are the transfer's now: only how much each carries says something.
            let (quic, tcp) = reached.measure(config).await;
            let rate = |probed: Option<Probed>| probed.map(|probed| probed.bytes_per_sec);
            let (quic, tcp) = (rate(quic), rate(tcp));
            let is_better = match transport {
                Kind::Quic => choice::is_clearly_faster(quic?, tcp.unwrap_or(0)),
                Kind::Tcp => choice::is_clearly_faster(tcp?, quic.unwrap_or(0)),
            };
            let reason = Reason::MeasuredAgain {
                quic: quic.unwrap_or(0),
                tcp: tcp.unwrap_or(0),
            };
            is_better.then(|| moved(reached, reason)).flatten()
        }
        // TCP has but a moment to answer, which may be too short on a busy machine; its path ends by itself if it is
        // dead.
        _ if present.transport == Kind::Tcp => None,
        // It answers no more, or the other still does not.
        _ => moved(reached, Reason::OtherFellSilent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for so many seconds at a rate; answers with the reasons and when they came.
    fn watch(
        watch: &mut Watch,
        from: u64,
        until: u64,
        bytes_per_sec: u64,
        is_heard: bool,
    ) -> Vec<(u64, ProbeReason)> {
        let mut reasons = Vec::new();
        for now in (from..until).step_by(2) {
            let wire = watch.wire + 2 * bytes_per_sec;
            let heard = watch.heard.unwrap_or(0) + u64::from(is_heard);
            let reason = watch.sample(Duration::from_secs(now), wire, Some(heard));
            reasons.extend(reason.map(|reason| (now, reason)));
        }
        reasons
    }

    #[test]
    fn a_steady_connection_is_measured_now_and_then_and_ever_more_rarely() {
        let mut steady = Watch::new(false);
        let reasons = watch(&mut steady, 2, 4000, 1_000_000, true);
        assert!(
            reasons
                .iter()
                .all(|(_, reason)| *reason == ProbeReason::Slow)
        );
        assert!((5..12).contains(&reasons.len()), "{reasons:?}");
        assert!(reasons[0].0 >= ROUTINE.as_secs(), "{reasons:?}");
    }

    #[test]
    fn one_that_slows_down_is_probed_soon_and_not_again_at_once() {
        let mut slowing = Watch::new(false);
        assert_eq!(watch(&mut slowing, 2, 30, 1_000_000, true), []);
        let reasons = watch(&mut slowing, 30, 90, 400_000, true);
        assert_eq!(
            reasons,
            [(34, ProbeReason::Slow)],
            "its rate is what it is now"
        );
        let mut moved = Watch::new(true);
        watch(&mut moved, 2, 10, 1_000_000, true);
        let reasons = watch(&mut moved, 10, 100, 100_000, true);
        assert_eq!(
            reasons.first(),
            Some(&(60, ProbeReason::Slow)),
            "it has just moved"
        );
    }

    #[test]
    fn one_that_falls_silent_is_probed_after_three_samples() {
        let mut silent = Watch::new(true);
        watch(&mut silent, 2, 10, 1_000, true);
        let reasons = watch(&mut silent, 10, 18, 1_000, false);
        assert_eq!(reasons, [(14, ProbeReason::Silent)]);
        let mut untold = Watch::new(false);
        for now in (2..20).step_by(2) {
            let reason = untold.sample(Duration::from_secs(now), 0, None);
            assert_eq!(reason, None, "TCP tells nothing of what it hears");
        }
    }
}
