//! The receiver's end of the carriers: one port for both, and the connections that come in.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Endpoint, VarInt};

use super::groups::Groups;
use super::{Accepted, RecvStream, SendStream};
use crate::{Identity, TransferError, quic, tcp};

/// Ports that are tried until one is free for both carriers.
const PORT_TRIES: u32 = 64;

/// How long to wait after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where senders connect.
#[derive(Debug)]
pub(crate) enum Listener {
    Net {
        quic: Endpoint,
        quic_groups: Groups<quinn::RecvStream>,
        tcp: tcp::Listener,
    },
    #[cfg(test)]
    Simulated(crate::simulation::network::Listener),
}

impl Listener {
    /// Opens the listeners of both carriers on one port, for `sender` alone.
    pub(crate) fn bind(
        address: SocketAddr,
        identity: &Identity,
        sender: &str,
    ) -> Result<Self, TransferError> {
        let mut tries = 0;
        loop {
            let endpoint = quic::server(address, identity, sender)?;
            let bound = endpoint.local_addr().and_then(std::net::TcpListener::bind);
            match bound {
                Ok(listener) => {
                    return Ok(Self::Net {
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
                Err(error) => {
                    return Err(TransferError::Connection {
                        address: address.to_string(),
                        message: error.to_string(),
                    });
                }
            }
        }
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Net { quic, .. } => quic.local_addr(),
            #[cfg(test)]
            Self::Simulated(_) => Ok(crate::simulation::network::ADDRESS),
        }
    }

    /// The next connection; `None` when the listener is closed. May be dropped and called again.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        match self {
            Self::Net {
                quic,
                quic_groups,
                tcp,
            } => loop {
                tokio::select! {
                    biased;
                    incoming = quic.accept() => {
                        return incoming.map(|incoming| Incoming::Quic(Box::new(incoming), quic_groups.clone()));
                    }
                    incoming = tcp.accept() => match incoming {
                        Ok(incoming) => return Some(Incoming::Tcp(incoming)),
                        Err(error) => {
                            // One that was gone before it was taken, or no descriptors: neither is helped by asking again at once.
                            tracing::debug!(%error, "a connection could not be taken");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                }
            },
            #[cfg(test)]
            Self::Simulated(listener) => listener.accept().await.map(Incoming::Simulated),
        }
    }

    /// Ends all connections of QUIC. Those of TCP end with whoever has them.
    pub(crate) fn close(&self, reason: &[u8]) {
        match self {
            Self::Net { quic, .. } => quic.close(VarInt::from_u32(0), reason),
            #[cfg(test)]
            Self::Simulated(listener) => listener.close(),
        }
    }

    /// Waits until nobody has to be told any more that it is closed. The caller bounds the time.
    pub(crate) async fn wait_idle(&self) {
        match self {
            Self::Net { quic, .. } => quic.wait_idle().await,
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }
}

/// A connection that has not yet shown who it is.
pub(crate) enum Incoming {
    Quic(Box<quinn::Incoming>, Groups<quinn::RecvStream>),
    Tcp(tcp::Incoming),
    #[cfg(test)]
    Simulated(crate::simulation::network::Incoming),
}

/// A connection whose peer has proved that it has the run's certificate.
pub(crate) enum Proved {
    Quic(quinn::Connection, Groups<quinn::RecvStream>),
    Tcp(Box<tcp::Proved>),
    #[cfg(test)]
    Simulated(crate::simulation::network::Incoming),
}

impl Incoming {
    /// Asks a peer that may have written another's address into its datagram to repeat what that address is told (RFC 9000, section
    /// 8.1.2). Returns the connection if its address is known to be its own.
    pub(crate) fn check_address(self) -> Option<Self> {
        match self {
            Self::Quic(incoming, _) if !incoming.remote_address_validated() => {
                // It fails only where the address was checked.
                let _retried = incoming.retry();
                None
            }
            checked => Some(checked),
        }
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(incoming, _) => incoming.remote_address(),
            Self::Tcp(incoming) => incoming.remote_address(),
            #[cfg(test)]
            Self::Simulated(_) => crate::simulation::network::ADDRESS,
        }
    }

    /// The handshake.
    pub(crate) async fn prove(self) -> io::Result<Proved> {
        Ok(match self {
            Self::Quic(incoming, groups) => Proved::Quic((*incoming).await?, groups),
            Self::Tcp(incoming) => Proved::Tcp(Box::new(incoming.prove().await?)),
            #[cfg(test)]
            Self::Simulated(incoming) => Proved::Simulated(incoming),
        })
    }
}

impl Proved {
    /// What the connection is. `None` is one that belongs to another and has gone there.
    pub(crate) async fn arrive(self) -> io::Result<Option<(Accepted, SendStream, RecvStream)>> {
        match self {
            Self::Quic(connection, groups) => match quic::arrive(connection, &groups).await? {
                quic::Arrived::Control(streams, send, receive) => {
                    let (send, receive) = (SendStream::Quic(send), RecvStream::Quic(receive));
                    Ok(Some((Accepted::Quic(streams), send, receive)))
                }
                quic::Arrived::Data => Ok(None),
            },
            Self::Tcp(proved) => match proved.arrive().await? {
                tcp::Arrived::Control(streams, send, receive) => {
                    let (send, receive) = (SendStream::Tcp(send), RecvStream::Tcp(receive));
                    Ok(Some((Accepted::Tcp(streams), send, receive)))
                }
                tcp::Arrived::Data => Ok(None),
            },
            #[cfg(test)]
            Self::Simulated(incoming) => {
                let (accepted, send, receive) = incoming.arrive();
                let (send, receive) = (SendStream::Simulated(send), RecvStream::Simulated(receive));
                Ok(Some((Accepted::Simulated(accepted), send, receive)))
            }
        }
    }
}
