//! Traces as a collector receives them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use telemetry::{TelemetryConfig, trace_context};
use tokio_stream::wrappers::TcpListenerStream;

#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        self.0.lock().expect("no holder panics").extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_goes_on_in_another_process_and_reaches_the_collector() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);

    let guard = telemetry::init(&TelemetryConfig {
        service_name: "wherry-test",
        otlp_endpoint: Some(endpoint.parse().expect("an address")),
        ..TelemetryConfig::default()
    })
    .expect("telemetry is set up once");

    let headers = tracing::info_span!("call").in_scope(trace_context::headers);
    assert!(headers.contains_key("traceparent"), "{headers:?}");
    let handler = tracing::info_span!("handle");
    trace_context::extract(&handler, &headers);
    handler.in_scope(|| tracing::info!("handled"));
    drop(handler);
    let stranger = tracing::info_span!("stranger");
    trace_context::extract(
        &stranger,
        &HashMap::from([("traceparent".to_owned(), "garbage".to_owned())]),
    );
    drop(stranger);

    tokio::time::timeout(Duration::from_secs(60), guard.shutdown())
        .await
        .expect("the flush has a bound");

    let spans = collector.0.lock().expect("no holder panics").clone();
    let named = |name: &str| {
        spans
            .iter()
            .find(|span| span.name == name)
            .unwrap_or_else(|| panic!("no span {name} in {spans:?}"))
    };
    let (call, handle, stranger) = (named("call"), named("handle"), named("stranger"));
    assert_eq!(handle.trace_id, call.trace_id);
    assert_eq!(handle.parent_span_id, call.span_id);
    assert_ne!(
        stranger.trace_id, call.trace_id,
        "a broken header starts a trace of its own"
    );
}
