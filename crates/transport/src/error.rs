//! Reasons why there is no connection.

use std::io;
use std::net::SocketAddr;

/// A connection can't be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The other side can't be reached, or the address can't be bound.
    #[error("{address}: {source}")]
    Unreachable {
        /// Its address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The TLS material can't be used.
    #[error("{0}")]
    Identity(String),
}

impl TransportError {
    pub(crate) fn unreachable(address: SocketAddr, source: io::Error) -> Self {
        Self::Unreachable { address, source }
    }
}
