//! A network in memory, in virtual time: latency, bandwidth, windows, and what goes wrong with networks.
//!
//! A transport like the others, and it behaves like them. Bytes of a stream come in order, and only so many may be
//! under way. An end whose peer says nothing for 15 s takes the connection for lost, by itself and in its own time. An
//! end that goes tells the other, if that message gets through; a machine that loses power tells nobody.

mod ends;
mod link;
mod pipe;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use transport::{Control, Identity, Kind, Transport, TransportError};

pub(crate) use ends::{Accepted, Client, Incoming, Listener};
use link::{End, Link};
use pipe::pipe;

use super::{Random, Trace};

/// The one address.
pub(crate) const ADDRESS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8700));

const WAITING: usize = 16;

/// The capacity of a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) latency: Duration,
    /// Of each connection, in each direction.
    pub(crate) bytes_per_sec: u64,
    /// Bytes of a stream that may be under way.
    pub(crate) window: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    shape: Shape,
    random: Random,
    trace: Trace,
    listener: Option<mpsc::Sender<Incoming>>,
    links: Vec<Weak<Link>>,
    next_link: u32,
    partitioned_until: Option<Instant>,
    /// After so many bytes of data streams the connection that carries them is cut.
    cut_after: Option<usize>,
    /// After so many bytes of data streams the one that carries them breaks, and the others do not.
    tear_after: Option<usize>,
    /// After so many bytes of data streams a bit is flipped.
    flip_after: Option<usize>,
    /// The same of control streams.
    flip_control_after: Option<usize>,
    flips: u32,
    data_bytes: u64,
    /// Number of connections that have carried any of them.
    connections_used: u64,
}

impl Network {
    pub(crate) fn new(shape: Shape, random: Random, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            shape,
            random,
            trace,
            listener: None,
            links: Vec::new(),
            next_link: 0,
            partitioned_until: None,
            cut_after: None,
            tear_after: None,
            flip_after: None,
            flip_control_after: None,
            flips: 0,
            data_bytes: 0,
            connections_used: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Takes connections from here on, in the place of whoever did.
    pub(crate) fn listen(&self) -> Listener {
        let (sender, arriving) = mpsc::channel(WAITING);
        self.state().listener = Some(sender);
        Listener {
            arriving: tokio::sync::Mutex::new(arriving),
            closed: CancellationToken::new(),
        }
    }

    /// Connects and opens the control stream. As long as nothing gets through it waits.
    async fn connect_client(&self) -> io::Result<(Client, Control<Client>)> {
        let there_and_back = 2 * self.state().shape.latency;
        sleep(there_and_back).await;
        self.reunited().await;
        let (link, listener) = {
            let mut state = self.state();
            let listener = state.listener.clone();
            let link = Link::new(state.next_link, self.clone());
            state.next_link += 1;
            state.links.retain(|link| link.strong_count() > 0);
            state.links.push(Arc::downgrade(&link));
            state.trace.note(|| format!("connection {}", link.number));
            (link, listener)
        };
        let (to_receiver, at_receiver) = pipe(&link, End::Sender, false);
        let (to_sender, at_sender) = pipe(&link, End::Receiver, false);
        let (streams, arriving) = mpsc::channel(WAITING);
        let client = Client {
            link: Arc::clone(&link),
            streams,
        };
        let incoming = Incoming {
            accepted: Accepted { link, arriving },
            control: (to_sender, at_receiver),
        };
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        listener
            .try_send(incoming)
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok((client, (to_receiver, at_sender)))
    }

    /// Waits until something gets through.
    async fn reunited(&self) {
        loop {
            let Some(until) = self.state().partition() else {
                return;
            };
            sleep_until(until).await;
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.state()
            .links
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Resets every connection.
    pub(crate) fn cut(&self) {
        self.links().iter().for_each(|link| link.reset());
    }

    /// Resets a connection when so many bytes more have been sent.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.state().cut_after = Some(bytes);
    }

    /// Breaks one data stream when so many bytes more have been sent.
    pub(crate) fn tear_after(&self, bytes: usize) {
        self.state().tear_after = Some(bytes);
    }

    /// Flips a bit when so many bytes more have been sent.
    pub(crate) fn flip_after(&self, bytes: usize) {
        self.state().flip_after = Some(bytes);
    }

    /// Flips a bit of what is said on a control stream, when so many bytes more have been sent there.
    pub(crate) fn flip_control_after(&self, bytes: usize) {
        self.state().flip_control_after = Some(bytes);
    }

    /// Number of bits of data streams that were flipped.
    pub(crate) fn flips(&self) -> u32 {
        self.state().flips
    }

    /// Bytes that were given to data streams.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.state().data_bytes
    }

    /// Number of connections that have carried bytes of data streams.
    pub(crate) fn connections_used(&self) -> u64 {
        self.state().connections_used
    }

    /// Nothing gets through for so long.
    pub(crate) fn partition(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        {
            let mut state = self.state();
            state.partitioned_until = state.partitioned_until.max(Some(until));
        }
        for link in self.links() {
            for end in [End::Sender, End::Receiver] {
                link.notice_silence(end);
            }
        }
    }

    /// From here on, nobody hears it when an end of a connection that stands now goes: its machine has lost power.
    pub(crate) fn silence(&self) {
        for link in self.links() {
            link.silence();
        }
    }
}

impl Transport for Network {
    type Connection = Client;

    async fn connect(
        &self,
        _kind: Kind,
        address: SocketAddr,
        _server_name: &str,
        _identity: &Identity,
    ) -> Result<(Client, Control<Client>), TransportError> {
        let connected = self.connect_client().await;
        connected.map_err(|source| TransportError::Unreachable { address, source })
    }
}

impl State {
    /// Until when nothing gets through, if that is so now.
    fn partition(&self) -> Option<Instant> {
        self.partitioned_until
            .filter(|until| *until > Instant::now())
    }
}

#[test]
fn the_simulated_network_is_a_transport() {
    use transport::conformance::Pair;

    let shape = Shape {
        latency: Duration::from_millis(5),
        bytes_per_sec: 1_000_000,
        window: 64 << 10,
    };
    super::run(Random::new(1), async {
        let network = Network::new(shape, Random::new(2), Trace::new());
        let (listener, nobody) = (network.listen(), super::world::nobody());
        Pair::new(network, Kind::Tcp, nobody, listener)
            .check()
            .await;
    });
}
