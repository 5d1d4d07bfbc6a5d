//! The four calls.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::{Clock as _, RequestId, SourceId};
use futures::Stream;
use pki::{AGENT_VALIDITY, Authority};
use prost::Message as _;
use proto::agent as wire;
use proto::agent::agent_service_server::AgentService;
use service::Shutdown;
use store::agent::{Caller, Heartbeat, Heartbeated, Holder, Registered, Registration, Seated};
use store::{ErrorKind, Store, StoreError};
use telemetry::Metric;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::connections::Peer;
use super::rates::Rates;
use super::watch::{Replaced, Watch, Watches};
use super::{Config, inventory, register};

/// Seconds between heartbeats that an agent may promise.
const HEARTBEAT_SECS: std::ops::RangeInclusive<u32> = 1..=3600;

/// The service of agents.
#[derive(Debug, Clone)]
pub(super) struct Agents {
    authority: Arc<Authority>,
    store: Store,
    watches: Watches,
    rates: Arc<Rates>,
    poll_interval: Duration,
    shutdown: Shutdown,
}

impl Agents {
    pub fn new(authority: Authority, store: Store, config: &Config) -> Self {
        Self {
            authority: Arc::new(authority),
            store,
            watches: Watches::default(),
            rates: Arc::new(Rates::new(config)),
            poll_interval: config.poll_interval(),
            shutdown: Shutdown::new(),
        }
    }

    pub fn ending_with(self, shutdown: Shutdown) -> Self {
        Self { shutdown, ..self }
    }

    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    async fn registered(
        &self,
        request: wire::RegisterRequest,
        origin: &str,
    ) -> Result<wire::RegisterResponse, Status> {
        let inventory = inventory::inventory(request.inventory)?;
        let clock_ahead_millis = request.unix_millis.map(clock_ahead);
        let public_key =
            pki::public_key_of_request(&request.certificate_request_pem).map_err(|error| {
                inventory::invalid(&format!("the certificate request is refused: {error}"))
            })?;
        let name = register::name(&request.name, inventory::host_name(&inventory))?;
        let registered = self
            .store
            .register_agent(Registration {
                code_hash: &register::code_hash(&request.activation_secret),
                public_key: &public_key,
                name: &name,
                inventory: &inventory,
                origin,
                request_id: RequestId::generate().as_str(),
            })
            .await
            .map_err(store_failed)?;
        let owner = match registered {
            Registered::New(owner) => {
                tracing::info!(tenant = %owner.tenant, source_id = %owner.source_id, %name, "a source has registered");
                owner
            }
            Registered::Known(owner) => {
                tracing::info!(tenant = %owner.tenant, source_id = %owner.source_id, "a source has registered again");
                owner
            }
            Registered::Refused(refusal) => return Err(register::refused(&refusal)),
        };
        let certificate_pem = self
            .authority
            .issue_client_for(owner.source_id.as_str(), &public_key, AGENT_VALIDITY)
            .map_err(|error| inventory::invalid(&format!("the agent's key is refused: {error}")))?;
        Ok(wire::RegisterResponse {
            source_id: owner.source_id.into(),
            certificate_pem,
            authority_pem: self.authority.certificate_pem().to_owned(),
            clock_ahead_millis,
        })
    }

    async fn beat(
        &self,
        source_id: &SourceId,
        request: wire::HeartbeatRequest,
    ) -> Result<wire::HeartbeatResponse, Status> {
        let inventory = inventory::inventory(request.inventory)?;
        let failure = inventory::failure(request.failure);
        let reports = inventory::reports(request.reports)?;
        let caller = inventory::caller(request.instance)?;
        let clock_ahead_millis = request.unix_millis.map(clock_ahead);
        let interval_secs = i32::try_from(request.interval_secs)
            .ok()
            .filter(|_| HEARTBEAT_SECS.contains(&request.interval_secs))
            .ok_or_else(|| inventory::invalid("heartbeats come every 1 to 3600 seconds"))?;
        let heartbeat = Heartbeat {
            inventory: &inventory,
            failure: failure.as_ref(),
            interval_secs,
            reports: &reports,
            caller: caller.as_ref(),
            clock_ahead_ms: clock_ahead_millis,
        };
        match self
            .store
            .agent_heartbeat(source_id, heartbeat)
            .await
            .map_err(store_failed)?
        {
            Heartbeated::Gone => Err(gone(source_id)),
            Heartbeated::Other(holder) => Err(not_listened_to(source_id, &holder)),
            Heartbeated::Recorded { assignments } => Ok(wire::HeartbeatResponse {
                clock_ahead_millis,
                assignments: assignments
                    .iter()
                    .map(|message| wire::Assignment::decode(message.as_slice()))
                    .collect::<Result<_, _>>()
                    .map_err(|error| {
                        tracing::error!(%source_id, %error, "an assignment in the database can't be decoded");
                        Status::internal("an assignment can't be read; the gateway's log has the cause")
                    })?,
            }),
        }
    }
}

#[tonic::async_trait]
impl AgentService for Agents {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::Nudge, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let span = continued(tracing::info_span!("agent_register"), &request);
        let peer = peer(&request)?;
        self.rates.registration(peer.address)?;
        if !peer.take_registration() {
            return Err(Status::failed_precondition(
                "a connection is good for one registration: make another one",
            ));
        }
        let remote = peer.address;
        let origin = remote.to_string();
        let answer = self
            .registered(request.into_inner(), &origin)
            .instrument(span)
            .await;
        let outcome = if answer.is_ok() {
            "registered"
        } else {
            "refused"
        };
        telemetry::counter(Metric::AgentRegistrations, &[("outcome", outcome)]).increment(1);
        if let Err(status) = &answer {
            tracing::warn!(
                %remote,
                reason = status.message(),
                "a server may not register"
            );
        }
        answer.map(Response::new)
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        let source_id = caller(&request)?;
        self.rates.source("renew", &source_id)?;
        let certificate = peer(&request)?.certificate.as_ref();
        let public_key = certificate
            .and_then(|certificate| pki::public_key_der_of(certificate).ok())
            .ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))?;
        // A certificate is renewed only for a source that exists.
        self.version(&source_id).await?;
        let certificate_pem = self
            .authority
            .issue_client_for(source_id.as_str(), &public_key, AGENT_VALIDITY)
            .map_err(|error| inventory::invalid(&format!("the agent's key is refused: {error}")))?;
        tracing::info!(%source_id, "an agent has renewed its certificate");
        Ok(Response::new(wire::RenewResponse { certificate_pem }))
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::HeartbeatResponse>, Status> {
        let source_id = caller(&request)?;
        self.rates.source("heartbeat", &source_id)?;
        let span = continued(tracing::info_span!("agent_heartbeat", %source_id), &request);
        self.beat(&source_id, request.into_inner())
            .instrument(span)
            .await
            .map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let source_id = caller(&request)?;
        self.rates.source("watch", &source_id)?;
        let caller = inventory::caller(request.into_inner().instance)?;
        self.seat(&source_id, caller.as_ref()).await?;
        let watch = self.watches.open(source_id);
        // Read after the watch was opened: any later change either wakes the watch or differs from this version.
        let seen = self.version(watch.source_id()).await?;
        let nudges = Nudges {
            agents: self.clone(),
            watch,
            seen,
        };
        Ok(Response::new(Box::pin(futures::stream::unfold(
            Some(nudges),
            Nudges::next,
        ))))
    }
}

impl Agents {
    /// Accepts only the agent that holds the source: the watch of another agent would end the first one's.
    async fn seat(&self, source_id: &SourceId, caller: Option<&Caller>) -> Result<(), Status> {
        let seated = self.store.seat_agent(source_id, caller).await;
        match seated.map_err(store_failed)? {
            Seated::Listened { .. } => Ok(()),
            Seated::Other(holder) => Err(not_listened_to(source_id, &holder)),
            Seated::Gone => Err(gone(source_id)),
        }
    }

    async fn version(&self, source_id: &SourceId) -> Result<String, Status> {
        self.store
            .agent_assignments_version(source_id)
            .await
            .map_err(store_failed)?
            .ok_or_else(|| gone(source_id))
    }
}

/// The stream of a watch: a nudge when the bus announces a change, or when the database shows one that the bus did not.
struct Nudges {
    agents: Agents,
    watch: Watch,
    /// The assignments at the last poll.
    seen: String,
}

impl Nudges {
    /// Takes one step of the stream; after an error there is no next one.
    async fn next(nudges: Option<Self>) -> Option<(Result<wire::Nudge, Status>, Option<Self>)> {
        let mut nudges = nudges?;
        Some(match nudges.nudged().await {
            Ok(()) => (Ok(wire::Nudge {}), Some(nudges)),
            Err(status) => (Err(status), None),
        })
    }

    async fn nudged(&mut self) -> Result<(), Status> {
        loop {
            tokio::select! {
                () = self.agents.shutdown.draining() => {
                    return Err(Status::unavailable("the gateway is going down"));
                }
                woken = self.watch.woken() => {
                    return woken.map_err(|Replaced| {
                        Status::aborted("another connection of this source has taken over; if this was no reconnect, two agents run with one key")
                    });
                }
                () = tokio::time::sleep(self.agents.poll_interval) => (),
            }
            match self.agents.version(self.watch.source_id()).await {
                Ok(version) if version != self.seen => {
                    self.seen = version;
                    return Ok(());
                }
                Ok(_) => (),
                Err(status) if status.code() == tonic::Code::NotFound => return Err(status),
                // Heartbeats show the agent soon enough that the database is away; a reconnect would not help.
                Err(status) => {
                    tracing::debug!(reason = status.message(), "assignments can't be looked up")
                }
            }
        }
    }
}

/// Returns the calling source: the common name of the certificate that the handshake has verified.
fn caller<T>(request: &Request<T>) -> Result<SourceId, Status> {
    peer(request)?.source_id.clone().ok_or_else(|| {
        Status::unauthenticated("this call needs the client certificate that Register gives")
    })
}

/// Returns the other end of the connection that the call came over.
fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    let peer = request.extensions().get();
    peer.ok_or_else(|| Status::internal("the call came over no connection"))
}

/// Returns the agent's clock minus this gateway's.
fn clock_ahead(agent_unix_millis: i64) -> i64 {
    let now = domain::clock::SystemClock.now();
    agent_unix_millis.saturating_sub(now.unix_seconds().saturating_mul(1000))
}

fn not_listened_to(source_id: &SourceId, holder: &Holder) -> Status {
    let (host, silent) = (&holder.host, domain::seat::spoken(holder.silent));
    let remedy = "If this server is to be a source of its own, end this agent, remove its state directory (--state-dir) and register it anew";
    Status::already_exists(if holder.is_clone {
        tracing::warn!(%source_id, host, "two servers call with one key: the second is refused");
        format!(
            "two servers have the key of {source_id}, as clones of one server do. The other, on host {host:?}, is the source. {remedy}"
        )
    } else {
        format!(
            "another agent with the key of {source_id} was heard {silent} ago, on host {host:?}: waiting whether it is gone. {remedy}"
        )
    })
}

fn gone(source_id: &SourceId) -> Status {
    Status::not_found(format!(
        "the source {source_id} has been deleted: to register this server anew, start the agent with an activation code and another state directory"
    ))
}

fn store_failed(error: StoreError) -> Status {
    match error.kind() {
        ErrorKind::Retry => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an agent's call found the database away"
            );
            Status::unavailable("the gateway can't reach its database")
        }
        ErrorKind::Conflict | ErrorKind::Corrupt | ErrorKind::Internal => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an agent's call failed"
            );
            Status::internal("the gateway failed; its log has the cause")
        }
    }
}

/// Makes `span` a child of the agent's.
fn continued<T>(span: tracing::Span, request: &Request<T>) -> tracing::Span {
    let headers: HashMap<String, String> = ["traceparent", "tracestate"]
        .into_iter()
        .filter_map(|name| {
            let value = request.metadata().get(name)?.to_str().ok()?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect();
    telemetry::trace_context::extract(&span, &headers);
    span
}
