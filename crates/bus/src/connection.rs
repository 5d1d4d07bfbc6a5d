//! The connection, publishing, and nudges.

use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr, jetstream};
use domain::SourceId;
use domain::message::{Message, TraceHeaders};
use futures::{Stream, StreamExt as _};
use uuid::Uuid;

use crate::{envelope, streams};

/// Interval of pings to a server. After three pings without an answer the connection is abandoned. A connection that
/// hangs or was cut off is thus detected within four intervals. The library's default would take minutes.
const PING_EVERY: Duration = Duration::from_secs(3);

/// Settings of the connection to NATS.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// URL of the form `nats://user:password@host:port`; several servers of one cluster are separated by commas.
    pub url: String,
    /// Name of this process's connection in NATS' monitoring.
    pub name: String,
    /// Longest wait for a connection, an acknowledgement or an answer.
    pub timeout: Duration,
}

impl BusConfig {
    /// Returns the defaults: 5 s for an answer.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// NATS or one of its streams failed to perform a request.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The text is not a URL.
    #[error(
        "{url} is not a NATS URL: give it as nats://user:password@host:4222, several with commas between them"
    )]
    InvalidUrl {
        /// The text, without credentials.
        url: String,
        /// Reason for the failure.
        #[source]
        source: std::io::Error,
    },
    /// No connection could be made.
    #[error("can't connect to NATS at {url}: is nats-server running there, with JetStream (-js)?")]
    Connect {
        /// The URL, without credentials.
        url: String,
        /// Reason for the failure.
        #[source]
        source: async_nats::ConnectError,
    },
    /// JetStream refused or did not answer.
    #[error("NATS failed to {doing}: {message}")]
    JetStream {
        /// The request.
        doing: &'static str,
        /// Answer of JetStream.
        message: String,
    },
    /// The answer did not come in time.
    #[error("NATS did not {doing} in {timeout:?}")]
    TimedOut {
        /// The request.
        doing: &'static str,
        /// Duration of the wait.
        timeout: Duration,
    },
}

impl BusError {
    pub(crate) fn jetstream(doing: &'static str, error: impl std::fmt::Display) -> Self {
        Self::JetStream {
            doing,
            message: error.to_string(),
        }
    }
}

/// The bus: a cheap handle to one connection, which reconnects by itself.
#[derive(Debug, Clone)]
pub struct Bus {
    client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) timeout: Duration,
}

impl Bus {
    /// Connects, and creates missing streams.
    ///
    /// # Errors
    /// [`BusError::Connect`], or JetStream refuses the streams.
    pub async fn connect(config: &BusConfig) -> Result<Self, BusError> {
        let servers = servers(&config.url)?;
        let client = credentials(&servers)
            .name(&config.name)
            .connection_timeout(config.timeout)
            .ping_interval(PING_EVERY)
            .request_timeout(Some(config.timeout))
            .connect(servers)
            .await
            .map_err(|source| BusError::Connect {
                url: without_credentials(&config.url),
                source,
            })?;
        let jetstream = jetstream::new(client.clone());
        let bus = Self {
            client,
            jetstream,
            timeout: config.timeout,
        };
        bus.ensure_streams().await?;
        Ok(bus)
    }

    /// Creates missing streams; existing streams stay unchanged.
    ///
    /// # Errors
    /// JetStream refuses or does not answer.
    pub async fn ensure_streams(&self) -> Result<(), BusError> {
        for config in streams::all() {
            self.bounded("make a stream", async {
                self.jetstream
                    .get_or_create_stream(config)
                    .await
                    .map_err(|error| BusError::jetstream("make a stream", error))
            })
            .await?;
        }
        Ok(())
    }

    /// Publishes a message and waits until the stream has stored it. The id makes a second publication of the same
    /// message within the stream's window a no-op.
    ///
    /// # Errors
    /// The stream is full, missing or silent. A missing stream has been created again when this returns, so the caller
    /// should try once more.
    pub async fn publish(
        &self,
        message: &Message,
        id: Uuid,
        headers: &TraceHeaders,
    ) -> Result<(), BusError> {
        let (subject, payload) = envelope::encode(message);
        self.send_on(subject, &payload, envelope::headers(id, headers))
            .await
    }

    /// Notifies the gateway that serves this source's agent that the agent's assignments have changed. A lost nudge
    /// does no harm, because the next heartbeat finds the change.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn nudge(&self, source_id: &SourceId) -> Result<(), BusError> {
        let subject = format!("{}{source_id}", streams::NUDGE_PREFIX);
        self.client
            .publish(subject, Vec::new().into())
            .await
            .map_err(|error| BusError::jetstream("pass on a nudge", error))
    }

    /// Returns every nudge from now on.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn nudges(
        &self,
    ) -> Result<impl Stream<Item = SourceId> + Send + Unpin + use<>, BusError> {
        let subscription = self
            .client
            .subscribe(format!("{}*", streams::NUDGE_PREFIX))
            .await
            .map_err(|error| BusError::jetstream("listen for nudges", error))?;
        Ok(Box::pin(subscription.filter_map(async |message| {
            message
                .subject
                .strip_prefix(streams::NUDGE_PREFIX)?
                .parse()
                .ok()
        })))
    }

    /// Sends a dead letter once more, unchanged.
    ///
    /// # Errors
    /// The subject is not one of the work queue's, or the stream refuses the message.
    pub async fn send_again(
        &self,
        subject: &str,
        payload: &[u8],
        headers: &TraceHeaders,
    ) -> Result<(), BusError> {
        self.send_on(subject.to_owned(), payload, envelope::sent_on(headers))
            .await
    }

    /// Stores a message that could not be read or processed.
    pub(crate) async fn keep_dead(
        &self,
        subject: &str,
        payload: &[u8],
        headers: &TraceHeaders,
        reason: &str,
    ) -> Result<(), BusError> {
        let mut headers = envelope::sent_on(headers);
        // A header is one line.
        let reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        headers.insert("Wherry-Reason", reason.as_str());
        self.send_on(
            format!("{}{subject}", streams::DEAD_PREFIX),
            payload,
            headers,
        )
        .await
    }

    async fn send_on(
        &self,
        subject: String,
        payload: &[u8],
        headers: async_nats::HeaderMap,
    ) -> Result<(), BusError> {
        let payload = payload.to_vec();
        let published = self
            .bounded("take a message", async {
                let acknowledged = self
                    .jetstream
                    .publish_with_headers(subject, headers, payload.into())
                    .await
                    .map_err(|error| BusError::jetstream("take a message", error))?;
                acknowledged
                    .await
                    .map_err(|error| BusError::jetstream("take a message", error))
            })
            .await;
        if published.is_err() {
            self.ensure_streams().await?;
        }
        published.map(|_acknowledgement| ())
    }

    /// Returns true if the connection is established now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    pub(crate) async fn bounded<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, BusError>>,
    ) -> Result<T, BusError> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, work)
            .await
            .unwrap_or(Err(BusError::TimedOut { doing, timeout }))
    }
}

fn servers(url: &str) -> Result<Vec<ServerAddr>, BusError> {
    url.split(',')
        .map(|server| server.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|source| BusError::InvalidUrl {
            url: without_credentials(url),
            source,
        })
}

/// Returns options with the first user and password of the URLs, because the client does not read credentials from
/// URLs.
fn credentials(servers: &[ServerAddr]) -> ConnectOptions {
    servers
        .iter()
        .find_map(|server| Some((server.username()?, server.password()?)))
        .map_or_else(ConnectOptions::new, |(user, password)| {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        })
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}
