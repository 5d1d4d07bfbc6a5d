//! From a request to its response: read, verify, count, allow, check, answer, render. A span, a metric and a time limit
//! surround these stages.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, header};
use domain::RequestId;
use service::door::Place;
use telemetry::Metric;
use tokio::time::{Instant, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::Refusal;
use crate::answer::{Answer, Format, failure, success};
use crate::arguments::Arguments;
use crate::auditing;
use crate::authentication::{Caller, verify};
use crate::authorization::authorize;
use crate::error_codes;
use crate::gateway::Gateway;
use crate::operation::{Call, Operation};
use crate::origin::Origin;
use crate::request::Incoming;

/// The label of calls that name no operation.
const UNKNOWN: &str = "unknown";

/// Facts about a call that are learned while it is answered; they outlive a failure.
#[derive(Debug, Default)]
struct Known {
    format: Format,
    operation: Option<&'static Operation>,
    /// The place of the call's connection, which is a stranger's until a call is verified.
    place: Option<Arc<Place>>,
}

/// Counts a request as being answered for as long as this guard lives. When a caller hangs up, the unfinished answer is
/// dropped, and the guard with it.
struct InFlight(telemetry::Gauge);

impl InFlight {
    fn enter() -> Self {
        let gauge = telemetry::gauge(Metric::ApiRequestsInFlight, &[]);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Answers one request.
pub async fn respond(
    gateway: Arc<Gateway>,
    origin: Origin,
    request: Request<Body>,
) -> Response<Body> {
    let received = Instant::now();
    let request_id = RequestId::generate();
    let span = tracing::info_span!("api call", %request_id, from = Empty, action = Empty, tenant = Empty, access_key = Empty, user = Empty, code = Empty, otel.kind = "server");
    telemetry::trace_context::extract(&span, &trace_of(request.headers()));
    let host = host(&request);
    let origin = origin.behind(&gateway.trusted_proxies, request.headers());
    span.record("from", tracing::field::display(origin));
    let _in_flight = InFlight::enter();
    let mut known = Known {
        place: request.extensions().get().cloned(),
        ..Known::default()
    };
    let limit = gateway.limits.request_timeout;
    let outcome = async {
        timeout(
            limit,
            done(&gateway, origin, &request_id, request, &mut known),
        )
        .await
        .unwrap_or_else(|_| {
            tracing::warn!(?limit, "a call was given up: it took too long");
            Err(Refusal::unavailable())
        })
    }
    .instrument(span.clone())
    .await;
    let action = known.operation.map_or(UNKNOWN, |operation| operation.name);
    let code = outcome
        .as_ref()
        .map_or_else(|refusal| refusal.code.as_ref(), |_| "OK");
    span.record("code", code);
    telemetry::histogram(
        Metric::ApiRequestSeconds,
        &[("action", action), ("code", code)],
    )
    .record(received.elapsed().as_secs_f64());
    if let Err(refusal) = &outcome {
        if let Some(operation) = known.operation {
            error_codes::check(operation, refusal);
        }
        tracing::debug!(parent: &span, code, message = refusal.message, "refused");
    }
    match outcome {
        Ok(answer) => success(action, answer, known.format, &request_id),
        Err(refusal) => failure(&refusal, &host, known.format, &request_id),
    }
}

async fn done(
    gateway: &Arc<Gateway>,
    origin: Origin,
    request_id: &RequestId,
    request: Request<Body>,
    known: &mut Known,
) -> Result<Answer, Refusal> {
    let incoming = Incoming::read(request, origin, gateway.limits, &mut known.format).await?;
    if gateway.requires_tls && !origin.is_secure {
        return Err(Refusal::new(
            "InvalidProtocol.NeedSsl",
            "Your request is denied as lack of ssl protect.",
        ));
    }
    let (caller, nonce) = verify(gateway, &incoming).await?;
    known.operation = Some(caller.operation);
    if let Some(place) = &known.place {
        place.prove(caller.tenant.as_str());
    }
    let call = Call {
        gateway: Arc::clone(gateway),
        tenant: caller.tenant.clone(),
        principal: caller.principal.clone(),
        headers: Arc::clone(&incoming.headers),
    };
    Span::current()
        .record("action", caller.operation.name)
        .record("tenant", call.tenant.as_str())
        .record("access_key", &call.principal.access_key_id);
    if let Some(user) = &call.principal.user {
        Span::current().record("user", &user.name);
    }
    let counted = gateway.throttle.count(&caller.tenant, caller.operation);
    if let Err(refusal) = counted.await {
        gateway
            .throttled
            .add(&caller, &incoming, request_id, &refusal);
        return Err(refusal);
    }
    nonce.use_up(gateway, &caller).await?;
    let arguments = allowed(gateway, &incoming, &caller).await;
    auditing::carry_out(&caller, &incoming, request_id, call, arguments).await
}

/// Returns the arguments of a call that its caller may make.
async fn allowed(
    gateway: &Gateway,
    incoming: &Incoming,
    caller: &Caller,
) -> Result<Arguments, Refusal> {
    authorize(gateway, incoming, caller).await?;
    Arguments::parse(&caller.operation.parameters, &incoming.pairs)
}

/// Returns `HostId` of error answers: the name under which the caller knows this service.
fn host(request: &Request<Body>) -> String {
    request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| {
            request
                .uri()
                .authority()
                .map(|authority| authority.as_str())
        })
        .unwrap_or_default()
        .to_owned()
}

fn trace_of(headers: &HeaderMap) -> domain::message::TraceHeaders {
    ["traceparent", "tracestate"]
        .into_iter()
        .filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}
