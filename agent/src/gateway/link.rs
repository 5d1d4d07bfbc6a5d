//! The connection to the gateway.
//!
//! One connection carries the watch and the heartbeats. When it breaks, everything starts again. Sends continue
//! meanwhile, since an assignment stays valid until a gateway withdraws it.

use std::convert::Infallible;
use std::time::Duration;

use domain::SourceId;
use proto::agent as wire;
use proto::agent::agent_service_client::AgentServiceClient;
use service::Shutdown;
use service::health::Condition;
use telemetry::trace_context::traced;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::{Renewal, chain, clock, retry_after, unconnected};
use crate::Config;
use crate::assignment::{Assignments, Board};
use crate::inventory::Snapshot;

/// Shortest pause between two heartbeats, however much there is to report.
const HEARTBEAT_GAP: Duration = Duration::from_millis(100);

/// Pause before a gateway that reports the source as deleted is asked again. It may have lost its database for a while,
/// but it will hardly find the source again.
const DELETED_PAUSE: Duration = Duration::from_secs(300);

type Client = AgentServiceClient<InterceptedService<Channel, Interceptor>>;
type Interceptor = fn(tonic::Request<()>) -> Result<tonic::Request<()>, Status>;

/// The agent's side of the connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub config: Config,
    pub source_id: SourceId,
    pub endpoint: Endpoint,
    pub renewal: Renewal,
    pub snapshots: watch::Receiver<Snapshot>,
    pub assignments: Assignments,
    pub board: Board,
    /// Identity of this agent.
    pub instance: wire::Instance,
    /// Set if the last heartbeat was answered.
    pub connected: Condition,
    /// True if this server's clock was off at the last heartbeat.
    pub is_clock_off: bool,
}

/// Reasons for which a connection ended.
enum Ended {
    /// The gateway is unreachable, or can't answer now.
    Lost(String),
    /// The gateway answers to another agent with this one's key, and identifies that agent.
    Other(String),
    /// The gateway does not know the source, and gives the reason.
    Deleted(String),
    /// The gateway asks to call later.
    Early(Duration),
}

impl Link {
    /// Keeps the connection until draining.
    pub async fn hold(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        tokio::select! {
            never = self.hold_for_ever() => never,
            () = shutdown.draining() => Ok(()),
        }
    }

    async fn hold_for_ever(&mut self) -> Result<(), Infallible> {
        let mut pauses = self.config.pauses();
        let mut complaint = None;
        loop {
            let began = Instant::now();
            let ended = match self.connection(&mut complaint).await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            self.connected.set(false);
            // A connection that always breaks at once must not be retried at once.
            if began.elapsed() > self.config.reconnect_max() {
                pauses.reset();
            }
            let pause = match ended {
                Ended::Lost(reason) => {
                    if complaint.replace(reason.clone()).is_none() {
                        tracing::warn!(source_id = %self.source_id, server = %self.config.server, reason, "lost the gateway: calling until it answers");
                    }
                    pauses.next()
                }
                Ended::Early(pause) => pause,
                Ended::Other(reason) => {
                    if complaint.replace(reason.clone()).is_none() {
                        tracing::error!(source_id = %self.source_id, server = %self.config.server, reason, "another agent has the key of this one");
                    }
                    // No data may be sent by two agents.
                    self.assignments.drop_all();
                    pauses.next()
                }
                Ended::Deleted(reason) => {
                    if complaint.replace(reason.clone()).as_ref() != Some(&reason) {
                        tracing::error!(source_id = %self.source_id, server = %self.config.server, reason, "this server is a source no longer");
                    }
                    self.assignments.drop_all();
                    DELETED_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Runs one connection, from its start to its end. The first answered heartbeat clears the complaint about the last
    /// connection.
    async fn connection(&mut self, complaint: &mut Option<String>) -> Result<Infallible, Ended> {
        let channel = self
            .endpoint
            .connect()
            .await
            .map_err(|error| Ended::Lost(unconnected(&error)))?;
        let mut client =
            AgentServiceClient::with_interceptor(channel, (|call| Ok(traced(call))) as Interceptor);
        // Opened before the first heartbeat, so that no change is missed between the two.
        let mut nudges = self
            .in_time(client.watch(wire::WatchRequest {
                instance: Some(self.instance.clone()),
            }))
            .await?
            .into_inner();
        self.heartbeat(&mut client).await?;
        self.connected.set(true);
        let was_lost = complaint.take().is_some();
        tracing::info!(source_id = %self.source_id, was_lost, "connected to the gateway");
        let mut reports = self.board.subscribe();
        loop {
            self.renew(&mut client).await;
            let last = Instant::now();
            tokio::select! {
                nudge = nudges.message() => {
                    nudge.map_err(ended)?.ok_or_else(|| Ended::Lost("the gateway closed the connection".to_owned()))?;
                }
                // Neither sender ends before this task: this task holds one, and its group the other.
                _ = reports.changed() => (),
                _ = self.snapshots.changed() => (),
                () = tokio::time::sleep(self.config.heartbeat_interval()) => (),
            }
            tokio::time::sleep_until(last + HEARTBEAT_GAP).await;
            reports.mark_unchanged();
            self.heartbeat(&mut client).await?;
        }
    }

    async fn heartbeat(&mut self, client: &mut Client) -> Result<(), Ended> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let request = wire::HeartbeatRequest {
            inventory: Some(snapshot.inventory),
            failure: snapshot.failure.map(|failure| wire::Failure {
                code: failure.code.as_str().to_owned(),
                message: failure.message,
            }),
            interval_secs: self.config.heartbeat_secs,
            reports: self.board.reports(),
            instance: Some(self.instance.clone()),
            unix_millis: clock::unix_millis(),
        };
        let span = tracing::info_span!("heartbeat", source_id = %self.source_id);
        let answer = loop {
            let call = client.heartbeat(request.clone());
            match self.in_time(call.instrument(span.clone())).await {
                Ok(answer) => break answer.into_inner(),
                // The connection works, and stays open.
                Err(Ended::Early(pause)) => tokio::time::sleep(pause).await,
                Err(ended) => return Err(ended),
            }
        };
        self.assignments.become_those(answer.assignments);
        self.compare_clocks(answer.clock_ahead_millis);
        Ok(())
    }

    /// Logs once that the clocks differ, and once that they agree again.
    fn compare_clocks(&mut self, ahead_millis: Option<i64>) {
        let off = ahead_millis.and_then(domain::seat::clock_off);
        match (&off, self.is_clock_off) {
            (Some(clock), false) => {
                tracing::warn!(source_id = %self.source_id, clock, "this server and the gateway don't agree on the time");
            }
            (None, true) => {
                tracing::info!(source_id = %self.source_id, "this server and the gateway agree on the time again");
            }
            _ => {}
        }
        self.is_clock_off = off.is_some();
    }

    /// Requests a new certificate when that is due. If there is none, the old one remains valid for a long time.
    async fn renew(&mut self, client: &mut Client) {
        if !self.renewal.is_due() {
            return;
        }
        let renewed = match self.in_time(client.renew(wire::RenewRequest {})).await {
            Ok(answer) => self
                .renewal
                .renewed(&self.config, answer.into_inner())
                .map_err(|error| chain(&error)),
            Err(Ended::Lost(reason) | Ended::Other(reason) | Ended::Deleted(reason)) => Err(reason),
            Err(Ended::Early(_)) => Err("the gateway asks to call later".to_owned()),
        };
        match renewed {
            Ok(endpoint) => {
                self.endpoint = endpoint;
                tracing::info!(source_id = %self.source_id, "the agent's certificate is renewed");
            }
            Err(reason) => {
                self.renewal.put_off();
                tracing::warn!(source_id = %self.source_id, reason, "the agent's certificate is not renewed yet: it is tried again in an hour");
            }
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Ended> {
        match tokio::time::timeout(self.config.request_timeout(), call).await {
            Ok(answer) => answer.map_err(ended),
            Err(_) => Err(Ended::Lost("the gateway did not answer in time".to_owned())),
        }
    }
}

fn ended(status: Status) -> Ended {
    if let Some(pause) = retry_after(&status) {
        return Ended::Early(pause);
    }
    match status.code() {
        Code::NotFound | Code::Unauthenticated | Code::PermissionDenied => {
            Ended::Deleted(status.message().to_owned())
        }
        Code::AlreadyExists => Ended::Other(status.message().to_owned()),
        code => Ended::Lost(format!("{code}: {}", status.message())),
    }
}
