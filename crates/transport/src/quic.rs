//! QUIC endpoints set for disks: windows for a fast path, jumbo datagrams where the path has them, mutual TLS by the
//! run's authority.

mod group;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};

pub(crate) use group::{Arrived, arrive};
pub use group::{Client, DataStreams};
pub use socket::is_local;

use crate::identity::{Identity, unusable};
use crate::{MOST_STREAMS, TransportError};

/// The protocol of a connection that joins another and carries data streams only.
const JOINING_ALPN: &[u8] = b"wherry-data/1";

/// Largest datagram where the route's own limit is not known: 1500 less the headers of IP and UDP.
const ETHERNET_PAYLOAD: u16 = 1452;

/// Largest datagram that either side takes: over loopback as large as UDP allows, elsewhere jumbo frames and whatever
/// else there is.
const MOST_PAYLOAD: u16 = 65_000;

/// Flow-control windows: per stream, per data connection, and for a sender's first connection.
const STREAM_WINDOW: u32 = 16 << 20;
const OTHER_CONNECTION_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Rate for the send window: as much as the path holds at this many bytes a second, within bounds. More would only wait
/// in memory.
const FASTEST_PATH: f64 = 2e9;
pub const LEAST_SEND_WINDOW: u64 = 16 << 20;

/// Silence after which a connection counts as lost, and the interval at which a waiting side shows that it lives.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// An endpoint that `sender` connects to.
///
/// # Errors
/// [`TransportError::Identity`], and [`TransportError::Unreachable`] when the address can't be bound.
pub(crate) fn server(
    listen: SocketAddr,
    identity: &Identity,
    sender: &str,
) -> Result<Endpoint, TransportError> {
    let mut tls = identity.server_tls(sender)?;
    tls.alpn_protocols.push(JOINING_ALPN.to_vec());
    let tls = QuicServerConfig::try_from(tls).map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = transport(ETHERNET_PAYLOAD);
    transport.max_concurrent_uni_streams(VarInt::from_u32(MOST_STREAMS as u32));
    config.transport_config(Arc::new(transport));
    endpoint(listen, ETHERNET_PAYLOAD, Some(config))
        .map_err(|error| TransportError::unreachable(listen, error))
}

/// An endpoint that connects to the receiver at `remote`: as the first of a sender's connections, and with the other
/// settings as one of the others.
///
/// # Errors
/// [`TransportError::Identity`], and [`TransportError::Unreachable`] when no socket can be made.
pub(crate) fn client(
    remote: SocketAddr,
    identity: &Identity,
) -> Result<(Endpoint, ClientConfig), TransportError> {
    let largest_payload = largest_payload(remote);
    let transport = Arc::new(transport(largest_payload));
    let config = |tls| {
        let tls = QuicClientConfig::try_from(tls).map_err(|error| unusable(&error))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::clone(&transport));
        Ok(config)
    };
    let mut joining = identity.client_tls()?;
    joining.alpn_protocols = vec![JOINING_ALPN.to_vec()];
    let any: SocketAddr = if remote.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let mut endpoint = endpoint(any, largest_payload, None)
        .map_err(|error| TransportError::unreachable(remote, error))?;
    endpoint.set_default_client_config(config(identity.client_tls()?)?);
    Ok((endpoint, config(joining)?))
}

/// The largest datagram that goes to `remote` in one piece, as far as this machine knows.
pub fn largest_payload(remote: SocketAddr) -> u16 {
    socket::largest_payload(remote).unwrap_or(ETHERNET_PAYLOAD)
}

/// The send window for a path with this round trip, in bytes.
pub(crate) fn send_window(round_trip: Duration) -> u64 {
    let held = round_trip.as_secs_f64() * FASTEST_PATH;
    (held as u64).clamp(LEAST_SEND_WINDOW, u64::from(CONNECTION_WINDOW))
}

fn transport(largest_payload: u16) -> TransportConfig {
    // Starts small and is raised by discovery: a handshake never goes below the size that it begins with.
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(largest_payload);
    let mut congestion = CubicConfig::default();
    // Above the largest datagram, or the first full one would never fit the window.
    congestion.initial_window(1 << 20);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(congestion))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(OTHER_CONNECTION_WINDOW))
        .send_window(LEAST_SEND_WINDOW)
        .send_fairness(false)
        .ack_frequency_config(Some(AckFrequencyConfig::default()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(
            IDLE_TIMEOUT
                .try_into()
                .expect("a few seconds fit the protocol's type"),
        ));
    transport
}

fn endpoint(
    listen: SocketAddr,
    largest_payload: u16,
    config: Option<ServerConfig>,
) -> io::Result<Endpoint> {
    let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
    let socket = socket::bind(listen, largest_payload, &*runtime)?;
    let mut endpoint = EndpointConfig::default();
    endpoint
        .max_udp_payload_size(MOST_PAYLOAD)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Endpoint::new_with_abstract_socket(endpoint, config, socket, runtime)
}
