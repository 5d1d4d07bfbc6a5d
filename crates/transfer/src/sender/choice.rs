//! The choice of a transport: both are tried at once, and where both answer a short probe measures them.
//!
//! QUIC is taken unless it does not answer, has just broken, is clearly the slower or the dearer one on this path, or
//! the path does not leave this machine. A run that broke off begins with a choice of its own, and one that goes on is
//! looked after ([`super::transport_monitor`]), so it changes transport where that helps; what is durable is not sent
//! again either way.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use transport::{Connection, Control, Kind, SendStream, Transport};

use super::{SendConfig, SourceDisk};
use crate::protocol::{MOST_PROBE_BYTES, ToReceiver, ToSender};
use crate::{TransferError, control, cpu_pool};

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the other transport once one has answered. UDP that is blocked is mostly silence, so this is what it costs.
const QUIC_GRACE: Duration = Duration::from_secs(2);
const TCP_GRACE: Duration = Duration::from_millis(250);

/// Time for the receiver to measure a probe and to answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(4);

/// Fewer bytes than these are sent before a probe would be over, and before a choice would have paid.
const LEAST_BYTES: u64 = 2 << 30;

/// On a longer path a probe would measure how transports begin, not how they run.
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(10);

/// With datagrams so large QUIC costs no more than TLS over TCP: there is nothing to find out.
const LARGE_PAYLOAD: u16 = 16_000;

/// Another transport is taken when it carries so many percent of what the default, or the present one, does.
const CLEARLY: u64 = 120;

/// TCP is taken also when it carries so many percent of what QUIC does, and leaves so many percent of a processor free.
/// They go into packing, or to whatever else the source does: over Ethernet's frames QUIC takes three times as much as
/// TLS over TCP for a byte.
const AS_MUCH: u64 = 95;
const CHEAPER: u64 = 20;

/// One write of a probe.
const PROBE_PIECE: usize = 256 << 10;

/// The caller's wish for a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// A probe chooses. A transport that broke under the last attempt is not taken again while the other one answers.
    Probe {
        /// The transport that broke, if one did.
        failed: Option<Kind>,
    },
    /// A probe chooses, also where there would be no use in one.
    Measure,
    /// This one and no other.
    Pinned(Kind),
}

/// A transport, and why it is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The transport.
    pub transport: Kind,
    /// The reason.
    pub reason: Reason,
}

/// The reason for a transport. Its text is what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The caller asked for it.
    Pinned,
    /// The other one did not answer.
    OtherSilent,
    /// The other one broke under the last attempt.
    OtherBroke,
    /// Both answered, and there was nothing to measure or no use in it.
    Unmeasured,
    /// The receiver is on this machine, where nothing is lost and all that counts is what a transport takes of the
    /// processors.
    SameMachine,
    /// Nothing came over the other one any more, and it did not answer a new call.
    OtherFellSilent,
    /// A probe measured both under way, in bytes a second.
    MeasuredAgain {
        /// Rate of QUIC.
        quic: u64,
        /// Rate of TCP.
        tcp: u64,
    },
    /// A probe measured both.
    Measured {
        /// The measurement of QUIC.
        quic: Probed,
        /// The measurement of TCP.
        tcp: Probed,
    },
}

/// The measurement of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Rate of arrival.
    pub bytes_per_sec: u64,
    /// Processor time of this process meanwhile, in percent of one processor.
    pub processor_percent: u64,
}

impl Reason {
    /// Returns true if it was taken while another one carried the transfer.
    pub(super) fn is_a_move(self) -> bool {
        matches!(self, Self::OtherFellSilent | Self::MeasuredAgain { .. })
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.reason, self.transport) {
            (Reason::Pinned, _) => f.write_str("asked for"),
            (Reason::OtherSilent, Kind::Tcp) => {
                f.write_str("UDP does not get through to the receiver")
            }
            (Reason::OtherSilent, Kind::Quic) => {
                f.write_str("TCP does not get through to the receiver")
            }
            (Reason::OtherBroke, transport) => write!(f, "{} broke off", transport.other()),
            (Reason::Unmeasured, _) => f.write_str("the default"),
            (Reason::SameMachine, _) => f.write_str("the receiver is on this machine"),
            (Reason::OtherFellSilent, transport) => write!(f, "{} fell silent", transport.other()),
            (Reason::MeasuredAgain { quic, tcp }, _) => write!(
                f,
                "under way a probe carried {} MB/s over quic and {} MB/s over tcp",
                quic / 1_000_000,
                tcp / 1_000_000
            ),
            (Reason::Measured { quic, tcp }, _) => {
                write!(f, "a probe carried {quic} over quic and {tcp} over tcp")
            }
        }
    }
}

impl std::fmt::Display for Probed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = self.bytes_per_sec / 1_000_000;
        write!(
            f,
            "{megabytes} MB/s ({} % of a processor)",
            self.processor_percent
        )
    }
}

/// A connection with its control stream.
pub(super) type Connected<T> = (
    <T as Transport>::Connection,
    Control<<T as Transport>::Connection>,
);

/// The transports that answer.
pub(super) struct Reached<T: Transport> {
    pub(super) quic: Option<Connected<T>>,
    pub(super) tcp: Option<Connected<T>>,
}

/// Connects to the receiver over the transport that serves best.
pub(super) async fn connect<T: Transport>(
    network: &T,
    config: &SendConfig,
) -> Result<(Connected<T>, Choice), TransferError> {
    match config.transport {
        Preference::Pinned(transport) => {
            let connected = reach(network, config, transport).await?;
            let reason = Reason::Pinned;
            Ok((connected, Choice { transport, reason }))
        }
        Preference::Probe { failed } => choose(network, config, failed).await,
        Preference::Measure => choose(network, config, None).await,
    }
}

async fn reach<T: Transport>(
    network: &T,
    config: &SendConfig,
    transport: Kind,
) -> Result<Connected<T>, TransferError> {
    let connecting = network.connect(
        transport,
        config.receiver,
        &config.server_name,
        &config.identity,
    );
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(TransferError::Connection {
            address: config.receiver.to_string(),
            message: format!("no answer over {transport} in {HANDSHAKE_TIMEOUT:?}"),
        }),
    }
}

/// Both at once. Whoever answers first waits a moment for the other. At least one has answered.
pub(super) async fn reach_both<T: Transport>(
    network: &T,
    config: &SendConfig,
) -> Result<Reached<T>, TransferError> {
    let reach = |transport| reach(network, config, transport);
    let (quic, tcp) = (reach(Kind::Quic), reach(Kind::Tcp));
    tokio::pin!(quic, tcp);
    let (quic, tcp) = tokio::select! {
        biased;
        quic = &mut quic => {
            let tcp = match &quic {
                Ok(_) => timeout(TCP_GRACE, tcp).await.ok().and_then(Result::ok),
                Err(_) => Some(tcp.await.map_err(|error| neither(&quic, error))?),
            };
            (quic.ok(), tcp)
        }
        tcp = &mut tcp => {
            match tcp {
                Ok(tcp) => (timeout(QUIC_GRACE, quic).await.ok().and_then(Result::ok), Some(tcp)),
                Err(error) => {
                    let quic = quic.await;
                    (Some(quic.map_err(|quic| neither(&Err::<(), _>(quic), error))?), None)
                }
            }
        }
    };
    Ok(Reached { quic, tcp })
}

async fn choose<T: Transport>(
    network: &T,
    config: &SendConfig,
    failed: Option<Kind>,
) -> Result<(Connected<T>, Choice), TransferError> {
    let Reached { quic, tcp } = reach_both(network, config).await?;
    let chosen =
        |connected: Connected<T>, transport, reason| (connected, Choice { transport, reason });
    match (quic, tcp) {
        (Some(quic), None) => Ok(chosen(quic, Kind::Quic, Reason::OtherSilent)),
        (None, Some(tcp)) => Ok(chosen(tcp, Kind::Tcp, Reason::OtherSilent)),
        (Some(quic), Some(tcp)) => match failed {
            Some(Kind::Quic) => Ok(chosen(tcp, Kind::Tcp, Reason::OtherBroke)),
            Some(Kind::Tcp) => Ok(chosen(quic, Kind::Quic, Reason::OtherBroke)),
            None if stays_here(config.transport, most_bytes(config), config.receiver) => {
                Ok(chosen(tcp, Kind::Tcp, Reason::SameMachine))
            }
            None if is_worth_a_probe(config, &tcp.0) => {
                let reached = Reached::<T> {
                    quic: Some(quic),
                    tcp: Some(tcp),
                };
                Ok(measured(config, reached).await)
            }
            None => Ok(chosen(quic, Kind::Quic, Reason::Unmeasured)),
        },
        (None, None) => unreachable!("one of the two has answered, or its error was returned"),
    }
}

/// Neither transport answers: QUIC's error says what TCP's does, or that it waited in vain.
fn neither<C>(quic: &Result<C, TransferError>, tcp: TransferError) -> TransferError {
    match (quic, tcp) {
        (
            Err(TransferError::Connection { address, message }),
            TransferError::Connection { message: tcp, .. },
        ) => TransferError::Connection {
            address: address.clone(),
            message: format!("over quic: {message}; over tcp: {tcp}"),
        },
        (_, tcp) => tcp,
    }
}

/// Returns true if much is to be sent and does not leave this machine. A probe would not see it: it keeps one stream
/// busy, and with several the connections of TCP share the processors while the one of QUIC does not.
fn stays_here(transport: Preference, bytes: u64, receiver: SocketAddr) -> bool {
    transport != Preference::Measure && bytes >= LEAST_BYTES && transport::is_local(receiver)
}

fn is_worth_a_probe(config: &SendConfig, tcp: &impl Connection) -> bool {
    may_measure(config, most_bytes(config)) && is_short(config, tcp)
}

fn most_bytes(config: &SendConfig) -> u64 {
    config.disks.iter().map(most_to_send).sum()
}

/// Returns true if a measurement would pay with so many bytes left, and harms nobody: a probe keeps to no limit.
pub(super) fn may_measure(config: &SendConfig, bytes: u64) -> bool {
    config.transport == Preference::Measure
        || bytes >= LEAST_BYTES
            && transport::largest_payload(config.receiver) < LARGE_PAYLOAD
            && config.bandwidth_limit.borrow().is_none()
            && config.shared_limit.is_none()
}

/// Returns true if the path is one on which a probe says something.
pub(super) fn is_short(config: &SendConfig, tcp: &impl Connection) -> bool {
    config.transport == Preference::Measure || tcp.round_trip() <= LONGEST_ROUND_TRIP
}

/// Returns the bytes that a disk may have to send. A file knows how much of it is not holes.
fn most_to_send(disk: &SourceDisk) -> u64 {
    match std::fs::metadata(&disk.path) {
        Ok(file) if file.is_file() => disk.size_bytes.min(file.blocks().saturating_mul(512)),
        _ => disk.size_bytes,
    }
}

impl<T: Transport> Reached<T> {
    /// Measures one after the other. `None` is a probe that has failed.
    pub(super) async fn measure(
        &mut self,
        config: &SendConfig,
    ) -> (Option<Probed>, Option<Probed>) {
        let quic = match &mut self.quic {
            Some(quic) => probe(config, quic).await,
            None => None,
        };
        let tcp = match &mut self.tcp {
            Some(tcp) => probe(config, tcp).await,
            None => None,
        };
        (quic, tcp)
    }

    /// The connection over this transport, if it has answered.
    pub(super) fn take(self, transport: Kind) -> Option<Connected<T>> {
        match transport {
            Kind::Quic => self.quic,
            Kind::Tcp => self.tcp,
        }
    }
}

/// Measures both and takes the better.
async fn measured<T: Transport>(
    config: &SendConfig,
    mut both: Reached<T>,
) -> (Connected<T>, Choice) {
    let (quic, tcp) = both.measure(config).await;
    let choice = weigh(quic, tcp);
    let connected = both.take(choice.transport).expect("both have answered");
    (connected, choice)
}

/// The better of two that were probed. One whose probe failed counts as one that does not answer.
fn weigh(quic: Option<Probed>, tcp: Option<Probed>) -> Choice {
    let (transport, reason) = match (quic, tcp) {
        (Some(quic), Some(tcp)) => {
            let transport = if tcp_serves_better(quic, tcp) {
                Kind::Tcp
            } else {
                Kind::Quic
            };
            (transport, Reason::Measured { quic, tcp })
        }
        (None, Some(_)) => (Kind::Tcp, Reason::OtherSilent),
        // Without both figures there is nothing to say against the default.
        (_, None) => (Kind::Quic, Reason::Unmeasured),
    };
    Choice { transport, reason }
}

/// Returns true if one carries so much more than the other that it is worth a change.
pub(super) fn is_clearly_faster(one: u64, other: u64) -> bool {
    one.saturating_mul(100) > other.saturating_mul(CLEARLY)
}

/// Returns true if TCP carries clearly more, or as much for clearly less of the processors.
fn tcp_serves_better(quic: Probed, tcp: Probed) -> bool {
    let carries_as_much =
        tcp.bytes_per_sec.saturating_mul(100) >= quic.bytes_per_sec.saturating_mul(AS_MUCH);
    let is_cheaper = tcp.processor_percent + CHEAPER <= quic.processor_percent;
    is_clearly_faster(tcp.bytes_per_sec, quic.bytes_per_sec) || carries_as_much && is_cheaper
}

/// Measures a connection: what the receiver saw, if it said so, and what that took here.
async fn probe<C: Connection>(
    config: &SendConfig,
    (client, control): &mut (C, Control<C>),
) -> Option<Probed> {
    let (to_receiver, from_receiver) = control;
    let request = ToReceiver::Probe {
        ticket: config.ticket.clone(),
    };
    let probing = async {
        let (began, processor_time) = (Instant::now(), cpu_pool::processor_time());
        control::write(to_receiver, &request).await.ok()?;
        let mut stream = client.open_probe().await.ok()?;
        let answer = control::read(from_receiver);
        tokio::pin!(answer);
        // What is not sent when the receiver has seen enough is thrown away with the stream.
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = fill(&mut stream) => answer.await,
        };
        stream.abandon();
        match answer {
            Ok(ToSender::Probed { bytes, micros }) => {
                let took = cpu_pool::processor_time() - processor_time;
                let lasted = began.elapsed().as_millis().max(1);
                Some(Probed {
                    bytes_per_sec: bytes.saturating_mul(1_000_000) / micros.max(1),
                    processor_percent: u64::try_from(took.as_millis() * 100 / lasted).ok()?,
                })
            }
            _ => None,
        }
    };
    timeout(PROBE_PATIENCE, probing).await.ok().flatten()
}

/// Writes until there is enough, or the receiver takes no more.
async fn fill(stream: &mut impl SendStream) {
    let piece = Bytes::from(vec![0x5a; PROBE_PIECE]);
    for _ in 0..MOST_PROBE_BYTES / PROBE_PIECE as u64 {
        if stream.write_chunk(piece.clone()).await.is_err() {
            return;
        }
    }
    let _enough = stream.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_that_stays_on_this_machine_needs_no_probe_unless_one_is_asked_for() {
        let probe = Preference::Probe { failed: None };
        let here: [SocketAddr; 2] = ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()];
        for receiver in here {
            assert!(stays_here(probe, LEAST_BYTES, receiver), "{receiver}");
            assert!(!stays_here(probe, LEAST_BYTES - 1, receiver));
            assert!(!stays_here(Preference::Measure, LEAST_BYTES, receiver));
        }
        // Nobody has this address (RFC 5737), whether there is a route to it or not.
        let elsewhere = "192.0.2.1:7".parse().unwrap();
        assert!(!stays_here(probe, LEAST_BYTES, elsewhere));
    }

    #[test]
    fn tcp_must_carry_clearly_more_or_as_much_for_clearly_less() {
        let probed = |(bytes_per_sec, processor_percent)| Probed {
            bytes_per_sec,
            processor_percent,
        };
        let serves_better = |quic, tcp| {
            let (quic, tcp) = (probed(quic), probed(tcp));
            let choice = weigh(Some(quic), Some(tcp));
            assert_eq!(choice.reason, Reason::Measured { quic, tcp });
            choice.transport == Kind::Tcp
        };
        // A link of 1 Gbit/s, one of 100 Mbit/s, and two of which TCP fills less or takes more.
        assert!(serves_better((118_000_000, 46), (119_000_000, 14)));
        assert!(!serves_better((12_000_000, 6), (12_000_000, 2)));
        assert!(!serves_better((118_000_000, 46), (100_000_000, 14)));
        assert!(!serves_better((118_000_000, 14), (119_000_000, 14)));
        assert!(serves_better((500_000_000, 90), (900_000_000, 190)));
        let some = Some(probed((118_000_000, 46)));
        assert_eq!(weigh(None, some).transport, Kind::Tcp);
        assert_eq!(weigh(some, None).transport, Kind::Quic);
        assert_eq!(weigh(None, None).transport, Kind::Quic);
    }

    #[test]
    fn tcp_must_be_clearly_faster_and_the_choice_says_why() {
        assert!(!is_clearly_faster(1_100, 1_000));
        assert!(is_clearly_faster(1_300, 1_000));
        assert!(is_clearly_faster(1, 0));
        assert!(!is_clearly_faster(0, 0));
        let text = |transport, reason| Choice { transport, reason }.to_string();
        let probed = |bytes_per_sec, processor_percent| Probed {
            bytes_per_sec,
            processor_percent,
        };
        let measured = Reason::Measured {
            quic: probed(310_000_000, 150),
            tcp: probed(1_200_000_000, 90),
        };
        assert_eq!(
            text(Kind::Tcp, measured),
            "a probe carried 310 MB/s (150 % of a processor) over quic and 1200 MB/s (90 % of a processor) over tcp"
        );
        let again = Reason::MeasuredAgain {
            quic: 2_000_000,
            tcp: 110_000_000,
        };
        assert_eq!(
            text(Kind::Tcp, again),
            "under way a probe carried 2 MB/s over quic and 110 MB/s over tcp"
        );
        assert!(text(Kind::Tcp, Reason::OtherSilent).starts_with("UDP"));
        assert_eq!(text(Kind::Tcp, Reason::OtherBroke), "quic broke off");
    }
}
