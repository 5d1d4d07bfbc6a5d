//! The receiver's end of both: one port for the two, and the connections that come in.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Endpoint, VarInt};

use super::{Accepted, RecvStream, SendStream};
use crate::groups::Groups;
use crate::{Arrived, Identity, TransportError, quic, tcp};

/// Ports that are tried until one is free for both transports.
const PORT_TRIES: u32 = 64;

/// Pause after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listeners of both transports, on one port.
#[derive(Debug)]
pub struct Listener {
    quic: Endpoint,
    quic_groups: Groups<quinn::RecvStream>,
    tcp: tcp::Listener,
}

impl Listener {
    /// Opens the listeners of both transports on one port, for `sender` alone.
    ///
    /// # Errors
    /// [`TransportError::Identity`], and [`TransportError::Unreachable`] when the address can't be bound.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        sender: &str,
    ) -> Result<Self, TransportError> {
        let mut tries = 0;
        loop {
            let endpoint = quic::server(address, identity, sender)?;
            let bound = endpoint.local_addr().and_then(std::net::TcpListener::bind);
            match bound {
                Ok(listener) => {
                    return Ok(Self {
                        quic: endpoint,
                        quic_groups: Groups::default(),
                        tcp: tcp::Listener::new(listener, identity, sender)?,
                    });
                }
                // Somebody has this port for TCP. Where any will do, another is tried.
                Err(error)
                    if address.port() == 0
                        && error.kind() == io::ErrorKind::AddrInUse
                        && tries < PORT_TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(TransportError::unreachable(address, error)),
            }
        }
    }
}

impl crate::Listener for Listener {
    type Incoming = Incoming;
    type Proved = Proved;
    type Accepted = Accepted;

    fn address(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    async fn accept(&self) -> Option<Incoming> {
        loop {
            tokio::select! {
                biased;
                incoming = self.quic.accept() => {
                    return incoming.map(|incoming| Incoming::Quic(Box::new(incoming), self.quic_groups.clone()));
                }
                incoming = self.tcp.accept() => match incoming {
                    Ok(incoming) => return Some(Incoming::Tcp(incoming)),
                    Err(error) => {
                        // One that was gone before it was taken, or no descriptors: neither is helped by asking again
                        // at once.
                        tracing::debug!(%error, "a connection could not be taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn remote_address(incoming: &Incoming) -> SocketAddr {
        match incoming {
            Incoming::Quic(incoming, _) => incoming.remote_address(),
            Incoming::Tcp(incoming) => incoming.remote_address(),
        }
    }

    fn check_address(incoming: Incoming) -> Option<Incoming> {
        match incoming {
            Incoming::Quic(incoming, _) if !incoming.remote_address_validated() => {
                // It fails only where the address was checked.
                let _retried = incoming.retry();
                None
            }
            checked => Some(checked),
        }
    }

    async fn prove(incoming: Incoming) -> io::Result<Proved> {
        Ok(match incoming {
            Incoming::Quic(incoming, groups) => Proved::Quic((*incoming).await?, groups),
            Incoming::Tcp(incoming) => Proved::Tcp(Box::new(incoming.prove().await?)),
        })
    }

    async fn arrive(proved: Proved) -> io::Result<Option<Arrived<Self>>> {
        match proved {
            Proved::Quic(connection, groups) => match quic::arrive(connection, &groups).await? {
                quic::Arrived::Control(streams, send, receive) => {
                    let (send, receive) = (SendStream::Quic(send), RecvStream::Quic(receive));
                    Ok(Some((Accepted::Quic(streams), send, receive)))
                }
                quic::Arrived::Data => Ok(None),
            },
            Proved::Tcp(proved) => match proved.arrive().await? {
                tcp::Arrived::Control(streams, send, receive) => {
                    let (send, receive) = (SendStream::Tcp(send), RecvStream::Tcp(receive));
                    Ok(Some((Accepted::Tcp(streams), send, receive)))
                }
                tcp::Arrived::Data => Ok(None),
            },
        }
    }

    /// Ends all connections of QUIC. Those of TCP end with whoever has them.
    fn close(&self, reason: &[u8]) {
        self.quic.close(VarInt::from_u32(0), reason);
    }

    async fn wait_idle(&self) {
        self.quic.wait_idle().await;
    }
}

/// A connection that has not yet shown who it is.
#[derive(Debug)]
pub enum Incoming {
    /// Over QUIC.
    Quic(Box<quinn::Incoming>, Groups<quinn::RecvStream>),
    /// Over TCP.
    Tcp(tcp::Incoming),
}

/// A connection whose peer has proved that it has the run's certificate.
#[derive(Debug)]
pub enum Proved {
    /// Over QUIC.
    Quic(quinn::Connection, Groups<quinn::RecvStream>),
    /// Over TCP.
    Tcp(Box<tcp::Proved>),
}
