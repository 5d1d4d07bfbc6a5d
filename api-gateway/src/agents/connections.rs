//! Connections of agents: a time limit for handshakes, and places for those with a certificate and for those without.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use domain::SourceId;
use futures::Stream;
use rustls::pki_types::CertificateDer;
use service::door::{Door, Place};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::handshake::Failures;

/// Pause after an accept failed. Without it, a lack of file descriptors would make the loop spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are past their handshake and wait to be served, which is a moment.
const QUEUE: usize = 64;

/// The other end of a connection, for the calls that come over it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub address: IpAddr,
    /// The common name of the certificate that the handshake has verified.
    pub source_id: Option<SourceId>,
    /// The DER of that certificate.
    pub certificate: Option<CertificateDer<'static>>,
    has_registered: Arc<AtomicBool>,
}

impl Peer {
    /// Takes the one registration that a connection allows. Returns false if it was taken before.
    pub fn take_registration(&self) -> bool {
        !self.has_registered.swap(true, Ordering::AcqRel)
    }
}

/// A connection past its handshake, with the place that it holds.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Completes when the connection must end.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
}

/// Returns the incoming connections. One without a certificate lives for `stranger_limit`, handshake included.
pub(super) fn incoming(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    door: Door,
    stranger_limit: Duration,
) -> impl Stream<Item = io::Result<Connection>> {
    let (queue, connections) = mpsc::channel(QUEUE);
    let failures = Arc::new(Failures::new());
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = queue.closed() => return,
            };
            let (stream, address) = accepted;
            let place = door.enter(address);
            let (acceptor, queue) = (acceptor.clone(), queue.clone());
            let failures = Arc::clone(&failures);
            tokio::spawn(async move {
                let shaken = place.in_time(stranger_limit, acceptor.accept(stream)).await;
                match shaken {
                    Some(Ok(stream)) => {
                        let connection = Connection::new(stream, address, place, stranger_limit);
                        // The listener is ending, and so does the connection.
                        let _gone = queue.send(Ok(connection)).await;
                    }
                    Some(Err(error)) => failures.tell(address, &error),
                    None => {}
                }
            });
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(connections)
}

async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without this option heartbeats are slower; nothing else changes.
                let _ = stream.set_nodelay(true);
                return (stream, peer.ip().to_canonical());
            }
            Err(error) => {
                tracing::warn!(%error, "an agent's connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Connection {
    fn new(
        stream: TlsStream<TcpStream>,
        address: IpAddr,
        place: Place,
        stranger_limit: Duration,
    ) -> Self {
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain.and_then(|chain| Some(chain.first()?.clone().into_owned()));
        let source_id: Option<SourceId> = certificate
            .as_ref()
            .and_then(|certificate| pki::common_name_of(certificate).ok())
            .and_then(|name| name.parse().ok());
        let is_known = source_id
            .as_ref()
            .is_some_and(|source_id| place.prove(source_id.as_str()));
        let end = async move {
            if is_known {
                place.given_up().await;
            } else {
                place.in_time(stranger_limit, pending::<()>()).await;
            }
        };
        Self {
            stream,
            peer: Peer {
                address,
                source_id,
                certificate,
                has_registered: Arc::default(),
            },
            end: Box::pin(end),
            has_ended: false,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection always waits for what it reads, so this wakes it in time.
        if self.has_ended || self.end.as_mut().poll(context).is_ready() {
            self.has_ended = true;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
