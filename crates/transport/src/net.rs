//! The two transports of a network, behind one port: QUIC, and TLS over TCP.

mod listener;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use quinn::VarInt;

pub use listener::{Incoming, Listener, Proved};

use crate::groups::Arriving;
use crate::{Control, Identity, Kind, TransportError, quic, tcp};

/// Connects over a network.
#[derive(Debug, Clone, Copy)]
pub struct Net;

impl crate::Transport for Net {
    type Connection = Connection;

    async fn connect(
        &self,
        kind: Kind,
        receiver: SocketAddr,
        server_name: &str,
        identity: &Identity,
    ) -> Result<(Connection, Control<Connection>), TransportError> {
        match kind {
            Kind::Quic => {
                let (client, (send, receive)) =
                    quic::Client::connect(receiver, server_name, identity).await?;
                let control = (SendStream::Quic(send), RecvStream::Quic(receive));
                Ok((Connection::Quic(client), control))
            }
            Kind::Tcp => {
                let (client, (send, receive)) =
                    tcp::Client::connect(receiver, server_name, identity).await?;
                let control = (SendStream::Tcp(send), RecvStream::Tcp(receive));
                Ok((Connection::Tcp(client), control))
            }
        }
    }
}

/// A sender's connection to its receiver.
#[derive(Debug)]
pub enum Connection {
    /// Over QUIC.
    Quic(quic::Client),
    /// Over TCP.
    Tcp(tcp::Client),
}

impl crate::Connection for Connection {
    type Sending = SendStream;
    type Receiving = RecvStream;

    fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(client) => client.round_trip(),
            Self::Tcp(client) => client.round_trip(),
        }
    }

    fn packets_received(&self) -> Option<u64> {
        match self {
            Self::Quic(client) => Some(client.packets_received()),
            Self::Tcp(_) => None,
        }
    }

    async fn open_data(&self, streams: usize, connections: usize) -> io::Result<Vec<SendStream>> {
        match self {
            Self::Quic(client) => {
                let opened = client.open_data(streams, connections).await?;
                Ok(opened.into_iter().map(SendStream::Quic).collect())
            }
            Self::Tcp(client) => {
                let opened = try_join_all((0..streams).map(|_| client.open_data())).await?;
                Ok(opened.into_iter().map(SendStream::Tcp).collect())
            }
        }
    }

    async fn open_probe(&self) -> io::Result<SendStream> {
        match self {
            Self::Quic(client) => Ok(SendStream::Quic(client.open_probe().await?)),
            Self::Tcp(client) => Ok(SendStream::Tcp(client.open_probe().await?)),
        }
    }

    async fn close(self) {
        if let Self::Quic(client) = self {
            client.close().await;
        }
    }
}

/// A sender's connection as the receiver has it.
#[derive(Debug)]
pub enum Accepted {
    /// Over QUIC.
    Quic(quic::DataStreams),
    /// Over TCP.
    Tcp(Arriving<tcp::Reader>),
}

impl crate::Accepted for Accepted {
    type Sending = SendStream;
    type Receiving = RecvStream;

    fn kind(&self) -> Kind {
        match self {
            Self::Quic(_) => Kind::Quic,
            Self::Tcp(_) => Kind::Tcp,
        }
    }

    async fn accept_data(&mut self) -> io::Result<RecvStream> {
        match self {
            Self::Quic(streams) => Ok(RecvStream::Quic(streams.next().await?)),
            Self::Tcp(streams) => Ok(RecvStream::Tcp(streams.next().await?)),
        }
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub enum SendStream {
    /// Over QUIC.
    Quic(quinn::SendStream),
    /// Over TCP.
    Tcp(tcp::Writer),
}

impl crate::SendStream for SendStream {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.write_all(bytes).await?),
            Self::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    async fn write_chunk(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.write_chunk(bytes).await?),
            Self::Tcp(stream) => stream.write_all(&bytes).await,
        }
    }

    fn abandon(mut self) {
        if let Self::Quic(stream) = &mut self {
            let _closed = stream.reset(VarInt::from_u32(0));
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.finish()?),
            Self::Tcp(stream) => stream.finish().await,
        }
    }

    async fn is_delivered(&mut self) -> bool {
        match self {
            Self::Quic(stream) => {
                let _gone = stream.stopped().await;
                true
            }
            Self::Tcp(_) => false,
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub enum RecvStream {
    /// Over QUIC.
    Quic(quinn::RecvStream),
    /// Over TCP.
    Tcp(tcp::Reader),
}

impl crate::RecvStream for RecvStream {
    async fn read_exact_or_end(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
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
        }
    }

    async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Quic(stream) => Ok(stream.read(buffer).await?.unwrap_or(0)),
            Self::Tcp(stream) => stream.read_some(buffer).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Pair;

    async fn check(kind: Kind) {
        let authority = pki::Authority::generate("run", pki::RUN_VALIDITY).unwrap();
        let identity = |issued: pki::Identity| Identity {
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: issued.certificate_pem,
            key_pem: issued.key_pem,
        };
        let receiver = identity(authority.issue_server(&["receiver".to_owned()]).unwrap());
        let sender = identity(authority.issue_client("s-agent").unwrap());
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(anywhere, &receiver, "s-agent").unwrap();
        Pair::new(Net, kind, sender, listener).check().await;
    }

    #[tokio::test]
    async fn quic_is_a_transport() {
        check(Kind::Quic).await;
    }

    #[tokio::test]
    async fn tls_over_tcp_is_a_transport() {
        check(Kind::Tcp).await;
    }
}
