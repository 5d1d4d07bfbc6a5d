//! A UDP socket that sends no more at once than the kernel takes.
//!
//! quinn hands up to ten datagrams to the kernel in one call and does not look at their sum. One call may carry 65,507
//! bytes; beyond that it fails as a whole, which looks like loss, and the path is taken for one with small datagrams.
//! So the number is capped by the largest datagram.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};

/// Bytes that one call may carry, with some to spare for headers.
const MOST_BYTES: usize = 65_000;

/// Buffers of the kernel, each way; it gives what its limits allow.
const KERNEL_BUFFER: usize = 4 << 20;

/// Binds a socket for datagrams of up to `largest_payload` bytes.
pub(super) fn bind(
    address: SocketAddr,
    largest_payload: u16,
    runtime: &dyn Runtime,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    use rustix::net::sockopt;

    let socket = UdpSocket::bind(address)?;
    // Root may pass the limits. A smaller buffer is lost speed, not an error.
    if sockopt::set_socket_recv_buffer_size_force(&socket, KERNEL_BUFFER).is_err() {
        let _smaller = sockopt::set_socket_recv_buffer_size(&socket, KERNEL_BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, KERNEL_BUFFER).is_err() {
        let _smaller = sockopt::set_socket_send_buffer_size(&socket, KERNEL_BUFFER);
    }
    Ok(Arc::new(Capped {
        most_segments: (MOST_BYTES / usize::from(largest_payload.max(1))).max(1),
        inner: runtime.wrap_udp_socket(socket)?,
    }))
}

#[derive(Debug)]
struct Capped {
    most_segments: usize,
    inner: Arc<dyn AsyncUdpSocket>,
}

impl AsyncUdpSocket for Capped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(self.most_segments)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// A socket with the route to `peer`. Nothing is sent: the kernel looks the route up.
fn routed(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if peer.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket)
}

/// Returns true if `peer` is an address of this machine: such a route begins where it ends.
pub fn is_local(peer: SocketAddr) -> bool {
    routed(peer)
        .and_then(|socket| socket.local_addr())
        .is_ok_and(|here| here.ip() == peer.ip())
}

/// The largest datagram that the route to `peer` takes without being cut: the interface's, less the headers of IP and
/// UDP.
pub(super) fn largest_payload(peer: SocketAddr) -> Option<u16> {
    let socket = routed(peer).ok()?;
    let (mtu, headers) = if peer.is_ipv4() {
        (rustix::net::sockopt::ip_mtu(&socket).ok()?, 28)
    } else {
        (rustix::net::sockopt::ipv6_mtu(&socket).ok()?, 48)
    };
    u16::try_from(
        mtu.saturating_sub(headers)
            .min(u32::from(super::MOST_PAYLOAD)),
    )
    .ok()
}
