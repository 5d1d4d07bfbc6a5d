//! The HTTP listener: connections are bounded in number, and one that sends its head too slowly is closed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use service::{Policy, Shutdown, TaskGroup};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::answering::respond;
use crate::gateway::Gateway;
use crate::openapi;
use crate::origin::Origin;

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub most: usize,
    /// Longest time for the head of a request, and for the next one to begin.
    pub head_timeout: Duration,
}

/// Pause after an accept failed: the process is out of file descriptors, and asking at once again would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until draining; each is a task of the group and ends with the request that it is on.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    gateway: Arc<Gateway>,
    limits: ConnectionLimits,
    tasks: TaskGroup,
) -> Result<(), Infallible> {
    let places = Arc::new(Semaphore::new(limits.most));
    let shutdown = tasks.shutdown().clone();
    loop {
        let accepted = async {
            // A full house leaves new connections in the kernel's queue.
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.draining() => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => {
                let conversation = Conversation {
                    origin: Origin::peer(peer, tls.is_some()),
                    gateway: Arc::clone(&gateway),
                    patience: limits.head_timeout,
                    shutdown: shutdown.clone(),
                };
                let mut once = Some((stream, tls.clone(), conversation, place));
                tasks.start("api_connection", Policy::restart().finishes(), move || {
                    let taken = once.take();
                    async move {
                        if let Some((stream, tls, conversation, _place)) = taken {
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

/// One connection, and what its requests share.
struct Conversation {
    origin: Origin,
    gateway: Arc<Gateway>,
    /// Longest wait for a handshake, the head of a request, or the next request.
    patience: Duration,
    shutdown: Shutdown,
}

impl Conversation {
    /// Serves the connection to its end, behind a handshake if it speaks TLS.
    async fn begin(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small and whole: waiting to fill a packet would only delay them.
        let _slower_without = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.converse(stream).await;
        };
        match timeout(self.patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let (gateway, origin) = (self.gateway, self.origin);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let gateway = Arc::clone(&gateway);
            async move {
                let response = match request.uri().path() {
                    openapi::PATH => openapi::response(gateway.description.clone()),
                    _ => respond(gateway, origin, request.map(Body::new)).await,
                };
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.patience)
            .keep_alive_timeout(self.patience)
            .max_concurrent_streams(100);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.draining() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}
