//! The way of bytes from a sender to its receiver.
//!
//! A [`Transport`] connects; a [`Listener`] takes what connects. Between the two is one control stream in both
//! directions, and any number of data streams from the sender to the receiver. The crate knows neither what passes over
//! them nor a disk.
//!
//! There are three implementations. [`net`] has two of them behind one port: QUIC, and TLS over TCP with a connection
//! for each stream. The third is a network in memory and in virtual time, which is in `transfer` with the simulation
//! that needs it. An engine that is written against the traits runs over each of them, and is compiled for each. All
//! three pass the rules of `conformance`.
//!
//! Both sides prove who they are before a byte of the caller passes: see [`Identity`]. Connections that belong together
//! share a name that only their two ends know: see `groups`.
//!
//! The crate may use none of ours.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod groups;
mod identity;
pub mod net;
mod quic;
mod tcp;

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use error::TransportError;
pub use identity::{Identity, is_named};
pub use quic::{LEAST_SEND_WINDOW, is_local, largest_payload};

/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"wherry/1";

/// Most streams of a transfer. Each costs either side a thread and a queue of chunks; a receiver takes no more.
pub const MOST_STREAMS: usize = 16;

/// The protocol below the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP, a connection for each stream.
    Tcp,
}

impl Kind {
    /// The name that people and the API read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tcp,
            Self::Tcp => Self::Quic,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two halves of the control stream.
pub type Control<C> = (<C as Connection>::Sending, <C as Connection>::Receiving);

/// Connects to receivers.
pub trait Transport: Debug + Send + Sync + 'static {
    /// A sender's connection to its receiver.
    type Connection: Connection;

    /// Connects and opens the control stream. No time-out of its own.
    fn connect(
        &self,
        kind: Kind,
        receiver: SocketAddr,
        server_name: &str,
        identity: &Identity,
    ) -> impl Future<Output = Result<(Self::Connection, Control<Self::Connection>), TransportError>> + Send;
}

/// A sender's connection to its receiver.
pub trait Connection: Debug + Send + Sync + 'static {
    /// The sending half of a stream.
    type Sending: SendStream;
    /// The receiving half of a stream.
    type Receiving: RecvStream;

    /// Returns the round trip of the path, where that is known without asking the other side.
    fn round_trip(&self) -> Duration;

    /// Number of packets that came from the receiver, of any kind; `None` where that is not known.
    fn packets_received(&self) -> Option<u64>;

    /// Opens data streams; only after the receiver's welcome. QUIC has them on up to so many connections, TCP each on
    /// its own.
    fn open_data(
        &self,
        streams: usize,
        connections: usize,
    ) -> impl Future<Output = io::Result<Vec<Self::Sending>>> + Send;

    /// Opens the stream of a probe: when it is dropped, what it has not sent is thrown away.
    fn open_probe(&self) -> impl Future<Output = io::Result<Self::Sending>> + Send;

    /// Says goodbye. The caller bounds how long it waits for the answer.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A connection with its control stream, as the receiver has it.
pub type Arrived<L> = (
    <L as Listener>::Accepted,
    <<L as Listener>::Accepted as Accepted>::Sending,
    <<L as Listener>::Accepted as Accepted>::Receiving,
);

/// The receiver's end: takes the connections of senders.
///
/// A connection comes in, may be asked to check its address, proves who it is, and then says what it is.
pub trait Listener: Debug + Send + Sync + 'static {
    /// A connection that has not yet shown who it is.
    type Incoming: Send + 'static;
    /// A connection whose peer has proved that it has the run's certificate.
    type Proved: Send + 'static;
    /// A sender's connection.
    type Accepted: Accepted;

    /// Returns the address at which it listens.
    ///
    /// # Errors
    /// The operating system does not say.
    fn address(&self) -> io::Result<SocketAddr>;

    /// The next connection; `None` when the listener is closed. May be dropped and called again.
    fn accept(&self) -> impl Future<Output = Option<Self::Incoming>> + Send;

    /// Returns the address from which a connection comes.
    fn remote_address(incoming: &Self::Incoming) -> SocketAddr;

    /// Asks a peer that may have written another's address into its datagram to repeat what that address is told (RFC
    /// 9000, section 8.1.2). Returns the connection if its address is known to be its own.
    fn check_address(incoming: Self::Incoming) -> Option<Self::Incoming>;

    /// The handshake. The caller bounds the time.
    fn prove(
        incoming: Self::Incoming,
    ) -> impl Future<Output = io::Result<Self::Proved>> + Send + 'static;

    /// Reads what the connection is. `None` is one that belongs to another and has gone there. The caller bounds the
    /// time.
    fn arrive(
        proved: Self::Proved,
    ) -> impl Future<Output = io::Result<Option<Arrived<Self>>>> + Send + 'static;

    /// Takes no more connections, and ends those that are not held by whoever has them.
    fn close(&self, reason: &[u8]);

    /// Waits until nobody has to be told any more that it is closed. The caller bounds the time.
    fn wait_idle(&self) -> impl Future<Output = ()> + Send;
}

/// A sender's connection as the receiver has it.
pub trait Accepted: Debug + Send + 'static {
    /// The sending half of a stream.
    type Sending: SendStream;
    /// The receiving half of a stream.
    type Receiving: RecvStream;

    /// The protocol that it came over.
    fn kind(&self) -> Kind;

    /// The next data stream. May be dropped and called again.
    fn accept_data(&mut self) -> impl Future<Output = io::Result<Self::Receiving>> + Send;
}

/// The sending half of a stream. To be finished: without that, the other side takes its end for one that was cut off,
/// or soon misses the rest.
pub trait SendStream: Debug + Send + 'static {
    /// Writes all bytes, and sends what lies in buffers on its way.
    fn write_all(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// The same; QUIC takes them without copying.
    fn write_chunk(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Throws away what has not been sent. Of TCP, only of a probe's stream.
    fn abandon(self);

    /// Ends the stream in order. What was written still arrives.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits, after the end, until the other side has all of it or is gone. Returns false at once where only the other
    /// direction can tell.
    fn is_delivered(&mut self) -> impl Future<Output = bool> + Send;
}

/// The receiving half of a stream.
pub trait RecvStream: Debug + Send + 'static {
    /// Fills the buffer; `false` if the stream was finished before its first byte.
    fn read_exact_or_end(
        &mut self,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<bool>> + Send;

    /// Reads what has come; 0 at the end of the stream. May be dropped and called again.
    fn read_some(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Fills the buffer.
    fn read_exact(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<()>> + Send {
        async {
            if self.read_exact_or_end(buffer).await? {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    /// Reads until the other side has closed.
    fn drain(&mut self) -> impl Future<Output = ()> + Send {
        async {
            let mut ignored = [0; 512];
            while matches!(self.read_some(&mut ignored).await, Ok(read) if read > 0) {}
        }
    }
}

/// Ends a control stream and waits until the other side has all that was written, or is gone.
pub async fn say_goodbye(send: &mut impl SendStream, receive: &mut impl RecvStream) {
    if send.finish().await.is_ok() && !send.is_delivered().await {
        receive.drain().await;
    }
}
