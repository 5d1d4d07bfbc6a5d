//! Free ports of the loopback address.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Returns `N` different ports without a listener. Another program may take one before it is used: callers then try
/// again with others.
pub(crate) fn free<const N: usize>() -> io::Result<[u16; N]> {
    // All are held until all are known, so that they differ.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
