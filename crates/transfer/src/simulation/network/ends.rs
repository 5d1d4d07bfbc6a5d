//! What a sender and a receiver hold of a connection.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::link::{End, Link};
use super::pipe::{Reader, Writer, lost, pipe};

/// The sender's end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) link: Arc<Link>,
    pub(super) streams: mpsc::Sender<Reader>,
}

impl Client {
    pub(crate) fn open_data(&self) -> io::Result<Writer> {
        let (writer, reader) = pipe(&self.link, End::Sender, true);
        self.streams.try_send(reader).map_err(|_| lost())?;
        Ok(writer)
    }
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

impl Accepted {
    /// The next data stream. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<Reader> {
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

impl Incoming {
    pub(crate) fn arrive(self) -> (Accepted, Writer, Reader) {
        (self.accepted, self.control.0, self.control.1)
    }
}

/// The receiver's listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) arriving: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    pub(super) closed: CancellationToken,
}

impl Listener {
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        let mut arriving = self.arriving.lock().await;
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            incoming = arriving.recv() => incoming,
        }
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }
}
