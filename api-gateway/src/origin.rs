//! Where a call came from.

use std::net::{IpAddr, SocketAddr};

/// Where a call came from, as far as this gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The caller's address.
    pub address: IpAddr,
    /// Whether the call came over TLS.
    pub is_secure: bool,
}

impl Origin {
    /// The other end of a connection.
    pub fn peer(peer: SocketAddr, is_secure: bool) -> Self {
        Self {
            // A dual-stack listener sees IPv4 callers under mapped addresses; policies and people name them plainly.
            address: peer.ip().to_canonical(),
            is_secure,
        }
    }
}
