//! The two carriers of a transfer: QUIC, and TLS over TCP. What runs over them is the same: one control stream in both directions, and data
//! streams from the sender to the receiver.

pub(crate) mod groups;
mod listener;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use quinn::VarInt;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::simulation::network;
use crate::{Identity, TransferError, quic, tcp};

use groups::Arriving;
pub(crate) use listener::{Incoming, Listener};

/// How bytes get from one side to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP, a connection for each stream.
    Tcp,
}

impl Carrier {
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

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A sender's connection to its receiver.
#[derive(Debug)]
pub(crate) enum Client {
    Quic(quic::Client),
    Tcp(tcp::Client),
    #[cfg(test)]
    Simulated(network::Client),
}

/// The two halves of the control stream.
pub(crate) type Control = (SendStream, RecvStream);

impl Client {
    /// Connects and opens the control stream. No time-out of its own.
    pub(crate) async fn connect(
        carrier: Carrier,
        receiver: SocketAddr,
        server_name: &str,
        identity: &Identity,
    ) -> Result<(Self, Control), TransferError> {
        match carrier {
            Carrier::Quic => {
                let (client, (send, receive)) =
                    quic::Client::connect(receiver, server_name, identity).await?;
                let control = (SendStream::Quic(send), RecvStream::Quic(receive));
                Ok((Self::Quic(client), control))
            }
            Carrier::Tcp => {
                let (client, (send, receive)) =
                    tcp::Client::connect(receiver, server_name, identity).await?;
                let control = (SendStream::Tcp(send), RecvStream::Tcp(receive));
                Ok((Self::Tcp(client), control))
            }
        }
    }

    /// How long the path is, where that is known without asking the other side.
    pub(crate) fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(client) => client.round_trip(),
            Self::Tcp(client) => client.round_trip(),
            #[cfg(test)]
            Self::Simulated(_) => Duration::ZERO,
        }
    }

    /// How often the receiver was heard, for whatever reason; `None` where that is not known.
    pub(crate) fn heard(&self) -> Option<u64> {
        match self {
            Self::Quic(client) => Some(client.heard()),
            Self::Tcp(_) => None,
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// Opens data streams; only after the receiver's welcome. QUIC has them on up to so many connections, TCP each on its own.
    pub(crate) async fn open_data(
        &self,
        streams: usize,
        connections: usize,
    ) -> io::Result<Vec<SendStream>> {
        match self {
            Self::Quic(client) => {
                let opened = client.open_data(streams, connections).await?;
                Ok(opened.into_iter().map(SendStream::Quic).collect())
            }
            Self::Tcp(client) => {
                let opened = try_join_all((0..streams).map(|_| client.open_data())).await?;
                Ok(opened.into_iter().map(SendStream::Tcp).collect())
            }
            #[cfg(test)]
            Self::Simulated(client) => (0..streams)
                .map(|_| Ok(SendStream::Simulated(client.open_data()?)))
                .collect(),
        }
    }

    /// Opens the stream of a probe: when it is dropped, what it has not sent is thrown away.
    pub(crate) async fn open_probe(&self) -> io::Result<SendStream> {
        match self {
            Self::Quic(client) => Ok(SendStream::Quic(client.open_probe().await?)),
            Self::Tcp(client) => Ok(SendStream::Tcp(client.open_probe().await?)),
            #[cfg(test)]
            Self::Simulated(client) => Ok(SendStream::Simulated(client.open_data()?)),
        }
    }

    /// Says goodbye. The caller bounds how long it waits for the answer.
    pub(crate) async fn close(self) {
        if let Self::Quic(client) = self {
            client.close().await;
        }
    }
}

/// A sender's connection as the receiver has it.
#[derive(Debug)]
pub(crate) enum Accepted {
    Quic(quic::DataStreams),
    Tcp(Arriving<tcp::Reader>),
    #[cfg(test)]
    Simulated(network::Accepted),
}

impl Accepted {
    /// Which of the two it is.
    pub(crate) fn carrier(&self) -> Carrier {
        match self {
            Self::Quic(_) => Carrier::Quic,
            Self::Tcp(_) => Carrier::Tcp,
            #[cfg(test)]
            Self::Simulated(_) => Carrier::Tcp,
        }
    }

    /// The next data stream. May be dropped and called again.
    pub(crate) async fn accept_data(&mut self) -> io::Result<RecvStream> {
        match self {
            Self::Quic(streams) => Ok(RecvStream::Quic(streams.next().await?)),
            Self::Tcp(streams) => Ok(RecvStream::Tcp(streams.next().await?)),
            #[cfg(test)]
            Self::Simulated(streams) => Ok(RecvStream::Simulated(streams.next().await?)),
        }
    }
}

/// The sending half of a stream. To be finished: without that, the other side takes its end for one that was cut off, or soon misses the rest.
#[derive(Debug)]
pub(crate) enum SendStream {
    Quic(quinn::SendStream),
    Tcp(tcp::Writer),
    #[cfg(test)]
    Simulated(network::Writer),
}

impl SendStream {
    /// Writes all bytes, and sends what lies in buffers on its way.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.write_all(bytes).await?),
            Self::Tcp(stream) => stream.write_all(bytes).await,
            #[cfg(test)]
            Self::Simulated(stream) => stream.write_all(bytes).await,
        }
    }

    /// The same; QUIC takes them without copying.
    pub(crate) async fn write_chunk(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.write_chunk(bytes).await?),
            Self::Tcp(stream) => stream.write_all(&bytes).await,
            #[cfg(test)]
            Self::Simulated(stream) => stream.write_all(&bytes).await,
        }
    }

    /// Throws away what has not been sent. Of TCP, only of a probe's stream.
    pub(crate) fn abandon(mut self) {
        if let Self::Quic(stream) = &mut self {
            let _closed = stream.reset(VarInt::from_u32(0));
        }
    }

    /// Ends the stream in order. What was written still arrives.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.finish()?),
            Self::Tcp(stream) => stream.finish().await,
            #[cfg(test)]
            Self::Simulated(stream) => stream.finish(),
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) enum RecvStream {
    Quic(quinn::RecvStream),
    Tcp(tcp::Reader),
    #[cfg(test)]
    Simulated(network::Reader),
}

impl RecvStream {
    /// Fills the buffer; `false` if the stream was finished before its first byte.
    pub(crate) async fn read_exact_or_end(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self {
            Self::Quic(stream) => match stream.read_exact(buffer).await {
                Ok(()) => Ok(true),
                Err(quinn::ReadExactError::FinishedEarly(0)) => Ok(false),
                Err(quinn::ReadExactError::FinishedEarly(_)) => {
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
                Err(quinn::ReadExactError::ReadError(error)) => Err(error.into()),
            },
            Self::Tcp(stream) => stream.read_exact_or_end(buffer).await,
            #[cfg(test)]
            Self::Simulated(stream) => stream.read_exact_or_end(buffer).await,
        }
    }

    /// Reads what has come; 0 at the end of the stream. May be dropped and called again.
    pub(crate) async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Quic(stream) => Ok(stream.read(buffer).await?.unwrap_or(0)),
            Self::Tcp(stream) => stream.read_some(buffer).await,
            #[cfg(test)]
            Self::Simulated(stream) => stream.read_some(buffer).await,
        }
    }

    /// Fills the buffer.
    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.read_exact_or_end(buffer).await? {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// Ends a control stream and waits until the other side has all that was written, or is gone.
pub(crate) async fn say_goodbye(send: &mut SendStream, receive: &mut RecvStream) {
    if send.finish().await.is_err() {
        return;
    }
    match (send, receive) {
        (SendStream::Quic(send), _) => {
            let _gone = send.stopped().await;
        }
        (_, RecvStream::Tcp(receive)) => receive.drain().await,
        #[cfg(test)]
        (_, RecvStream::Simulated(receive)) => receive.drain().await,
        (_, RecvStream::Quic(_)) => {}
    }
}
