//! Free ports of the loopback address.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// `N` different ports that nobody listens on. Somebody may take one before it is used: callers try again with others.
pub(crate) fn free<const N: usize>() -> io::Result<[u16; N]> {
    // All are held until all are known, so that no two are the same.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
