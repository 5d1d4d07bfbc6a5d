//! The HTTP listener: connections have places at a door, and one that holds its place without need is ended.

mod activity;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use service::door::{Door, Place, Reason};
use service::{Policy, Shutdown, TaskGroup};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::answering::respond;
use crate::gateway::Gateway;
use crate::openapi;
use crate::origin::Origin;

use activity::Activity;
pub use activity::Patience;

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// From a connection's beginning to its first byte.
    pub first_byte: Duration,
    /// From a connection's beginning to the end of its TLS handshake.
    pub handshake: Duration,
    /// Bounds after the handshake.
    pub patience: Patience,
}

/// Pause after an accept failed: the process is out of file descriptors, and an immediate retry would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time that a connection has to end after it was asked to.
const GOODBYE: Duration = Duration::from_secs(5);

/// Accepts connections until draining; each is a task of the group and ends with its current request.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    gateway: Arc<Gateway>,
    (door, limits): (Door, ConnectionLimits),
    tasks: TaskGroup,
) -> Result<(), Infallible> {
    let shutdown = tasks.shutdown().clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.draining() => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => {
                let origin = Origin::peer(peer, tls.is_some());
                let address = peer.ip().to_canonical();
                let place = door.enter(address);
                if gateway.is_trusted_proxy(address) {
                    place.trust();
                }
                let conversation = Conversation {
                    origin,
                    place: Arc::new(place),
                    gateway: Arc::clone(&gateway),
                    limits,
                    shutdown: shutdown.clone(),
                };
                let mut once = Some((stream, tls.clone(), conversation));
                tasks.start("api_connection", Policy::restart().finishes(), move || {
                    let taken = once.take();
                    async move {
                        if let Some((stream, tls, conversation)) = taken {
                            conversation.begin(stream, tls).await;
                        }
                        Ok::<(), Infallible>(())
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, and the state that its requests share.
struct Conversation {
    origin: Origin,
    place: Arc<Place>,
    gateway: Arc<Gateway>,
    limits: ConnectionLimits,
    shutdown: Shutdown,
}

impl Conversation {
    /// Serves the connection to its end, behind a handshake if it speaks TLS.
    async fn begin(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small and whole: waiting to fill a packet would only delay them.
        let _slower_without = stream.set_nodelay(true);
        let mut first = [0];
        let came = stream.peek(&mut first);
        let Some(Ok(1)) = self.in_time(self.limits.first_byte, came).await else {
            return;
        };
        let Some(tls) = tls else {
            return self.converse(stream).await;
        };
        let shaken = tls.accept(stream);
        match self.in_time(self.limits.handshake, shaken).await {
            Some(Ok(stream)) => self.converse(stream).await,
            Some(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            None => {}
        }
    }

    /// Runs a step before the first request. Returns nothing if the connection is to end: a client without a request
    /// loses nothing when the gateway drains.
    async fn in_time<T>(&self, limit: Duration, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = self.place.in_time(limit, step) => done,
            () = self.shutdown.draining() => None,
        }
    }

    async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let (gateway, origin, patience) = (self.gateway, self.origin, self.limits.patience);
        let activity = Activity::new(self.place.since());
        let (requests, place) = (Arc::clone(&activity), Arc::clone(&self.place));
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let (gateway, under_way) = (Arc::clone(&gateway), requests.begin());
            // A verified call makes the connection a known one.
            request.extensions_mut().insert(Arc::clone(&place));
            async move {
                let response = match request.uri().path() {
                    openapi::PATH => openapi::response(gateway.description.clone()),
                    _ => respond(gateway, origin, request.map(Body::new)).await,
                };
                Ok::<_, Infallible>(under_way.answered(response))
            }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.idle);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(patience.idle)
            .keep_alive_timeout(patience.idle)
            .max_concurrent_streams(100);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // Ends as soon as no request is under way; HTTP/2 announces this with a GOAWAY.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.draining() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    _ = activity.overdue(patience) => return,
                }
            }
            reason = activity.overdue(patience) => {
                self.place.ended_for(reason);
                if reason == Reason::Idle {
                    connection.as_mut().graceful_shutdown();
                    let _cut = timeout(GOODBYE, connection).await;
                }
                return;
            }
            _ = self.place.given_up() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}
