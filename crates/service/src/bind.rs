//! Binds an address. Its errors name the setting to change.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Reasons for which an address cannot be bound. The text names the setting to change.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens on the address.
    #[error("address {address} is in use by another program: choose another with {flag}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: String,
    },
    /// No interface of this machine has the address.
    #[error("address {address} is not an address of this machine: choose another with {flag}")]
    NotOurs {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: String,
    },
    /// The port is reserved.
    #[error(
        "this user may not listen on {address}: choose a port above 1023 with {flag}, or grant CAP_NET_BIND_SERVICE"
    )]
    Denied {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: String,
    },
    /// Any other failure.
    #[error("cannot listen on {address}, set by {flag}")]
    Listening {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Listens on `address`, which the operator set with `flag` (such as `--api`). Port 0 takes a free port.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| {
        let flag = flag.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, flag },
            io::ErrorKind::AddrNotAvailable => BindError::NotOurs { address, flag },
            io::ErrorKind::PermissionDenied => BindError::Denied { address, flag },
            _ => BindError::Listening {
                address,
                flag,
                source,
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_named_with_the_flag_that_moves_it() {
        let first = bind(([127, 0, 0, 1], 0).into(), "--api")
            .await
            .expect("a free port");
        let address = first.local_addr().expect("a bound socket has an address");
        let error = bind(address, "--api").await.expect_err("taken");
        assert_eq!(
            error.to_string(),
            format!("address {address} is in use by another program: choose another with --api"),
        );
    }

    #[tokio::test]
    async fn a_foreign_address_is_told_apart_from_a_taken_one() {
        let error = bind(([192, 0, 2, 1], 0).into(), "--agents")
            .await
            .expect_err("not ours");
        assert!(
            error
                .to_string()
                .contains("is not an address of this machine"),
            "{error}"
        );
    }
}
