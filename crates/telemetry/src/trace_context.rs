//! Carries a trace from one process to the next in W3C form (`traceparent`, `tracestate`): in message headers, in gRPC
//! metadata and in outbox rows.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Request;
use tonic::metadata::{MetadataKey, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the current span's context into `headers`. Writes nothing while no traces are exported.
pub fn inject(headers: &mut HashMap<String, String>) {
    inject_span(&Span::current(), headers);
}

/// Writes `span`'s context into `headers`; see [`inject`].
pub fn inject_span(span: &Span, headers: &mut HashMap<String, String>) {
    TraceContextPropagator::new().inject_context(&span.context(), headers);
}

/// Returns the current span's context as new headers; see [`inject`].
pub fn headers() -> HashMap<String, String> {
    let mut headers = HashMap::new();
    inject(&mut headers);
    headers
}

/// Returns the call with the current span's context in its metadata; see [`inject`].
pub fn traced<T>(mut request: Request<T>) -> Request<T> {
    for (name, value) in headers() {
        if let (Ok(name), Ok(value)) = (
            MetadataKey::from_bytes(name.as_bytes()),
            MetadataValue::try_from(value),
        ) {
            request.metadata_mut().insert(name, value);
        }
    }
    request
}

/// Makes `span` a child of the context in `headers`. Call it before the span is first entered. Headers with no context
/// or a broken one leave the span as it is: an unknown caller's header must do no harm.
pub fn extract(span: &Span, headers: &HashMap<String, String>) {
    use opentelemetry::trace::TraceContextExt;

    let context = TraceContextPropagator::new().extract(headers);
    if context.span().span_context().is_valid() {
        // The only error is a span without an exporter behind it, which has no parent to set.
        let _ = span.set_parent(context);
    }
}
