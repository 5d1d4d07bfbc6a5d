//! The two ends of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use transport::{Arrived, Kind};

use super::ADDRESS;
use super::link::{End, Link};
use super::pipe::{Reader, Writer, lost, pipe};

/// The sender's end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) link: Arc<Link>,
    pub(super) streams: mpsc::Sender<Reader>,
}

impl Client {
    fn open(&self) -> io::Result<Writer> {
        let (writer, reader) = pipe(&self.link, End::Sender, true);
        self.streams.try_send(reader).map_err(|_| lost())?;
        Ok(writer)
    }
}

impl transport::Connection for Client {
    type Sending = Writer;
    type Receiving = Reader;

    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }

    fn packets_received(&self) -> Option<u64> {
        None
    }

    async fn open_data(&self, streams: usize, _connections: usize) -> io::Result<Vec<Writer>> {
        (0..streams).map(|_| self.open()).collect()
    }

    async fn open_probe(&self) -> io::Result<Writer> {
        self.open()
    }

    async fn close(self) {}
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.leave(End::Sender);
    }
}

/// The receiver's end of a connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(super) link: Arc<Link>,
    pub(super) arriving: mpsc::Receiver<Reader>,
}

impl transport::Accepted for Accepted {
    type Sending = Writer;
    type Receiving = Reader;

    fn kind(&self) -> Kind {
        Kind::Tcp
    }

    async fn accept_data(&mut self) -> io::Result<Reader> {
        let gone = self.link.gone(End::Receiver);
        tokio::select! {
            biased;
            () = gone.cancelled() => Err(lost()),
            Some(stream) = self.arriving.recv() => Ok(stream),
            // The sender's end has gone; this one has yet to hear of it.
            else => { gone.cancelled().await; Err(lost()) }
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.link.leave(End::Receiver);
    }
}

/// A connection that has come and was not yet taken.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) accepted: Accepted,
    pub(super) control: (Writer, Reader),
}

/// The receiver's listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) arriving: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    pub(super) closed: CancellationToken,
}

impl transport::Listener for Listener {
    type Incoming = Incoming;
    type Proved = Incoming;
    type Accepted = Accepted;

    fn address(&self) -> io::Result<SocketAddr> {
        Ok(ADDRESS)
    }

    async fn accept(&self) -> Option<Incoming> {
        let mut arriving = self.arriving.lock().await;
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            incoming = arriving.recv() => incoming,
        }
    }

    fn remote_address(_incoming: &Incoming) -> SocketAddr {
        ADDRESS
    }

    fn check_address(incoming: Incoming) -> Option<Incoming> {
        Some(incoming)
    }

    async fn prove(incoming: Incoming) -> io::Result<Incoming> {
        Ok(incoming)
    }

    async fn arrive(incoming: Incoming) -> io::Result<Option<Arrived<Self>>> {
        let (to_sender, from_sender) = incoming.control;
        Ok(Some((incoming.accepted, to_sender, from_sender)))
    }

    fn close(&self, _reason: &[u8]) {
        self.closed.cancel();
    }

    async fn wait_idle(&self) {}
}
