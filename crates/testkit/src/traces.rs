//! A collector of traces, and a check that they show a started job's way from the API's call to the receiver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use tokio_stream::wrappers::TcpListenerStream;

/// A span that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// Id of the trace.
    pub trace: Vec<u8>,
    /// Its id in the trace.
    pub id: Vec<u8>,
    /// The span that caused it; empty for the first of a trace.
    pub parent: Vec<u8>,
    /// The process that made it.
    pub service: String,
    /// Name of the operation.
    pub name: String,
    /// The API's action that was called, if it is a call.
    pub action: String,
}

/// Keeps every span that processes export to it.
#[derive(Debug, Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens, and answers with its address, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub async fn start(&self) -> anyhow::Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok(endpoint)
    }

    /// The spans that have arrived.
    pub fn spans(&self) -> Vec<Span> {
        self.0.lock().expect("no holder panics").clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut spans = self.0.lock().expect("no holder panics");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes);
            let service = text(&attributes.unwrap_or_default(), "service.name");
            let scopes = resource.scope_spans.into_iter();
            spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| Span {
                action: text(&span.attributes, "action"),
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                service: service.clone(),
                name: span.name,
            }));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .and_then(|attribute| attribute.value.as_ref()?.value.as_ref())
        .map_or_else(String::new, |value| match value {
            any_value::Value::StringValue(text) => text.clone(),
            other => format!("{other:?}"),
        })
}

/// The spans from the receiver's admission of a run up to the API's call that started the job. Each span is the cause
/// of the one before it.
pub fn way_of_a_start(spans: &[Span]) -> Option<Vec<&Span>> {
    let by_id: HashMap<(&[u8], &[u8]), &Span> = spans
        .iter()
        .map(|span| ((span.trace.as_slice(), span.id.as_slice()), span))
        .collect();
    spans
        .iter()
        .filter(|span| span.service == "wherry-receiver" && span.name == "receiver.admit")
        .find_map(|admission| {
            let mut way = vec![admission];
            while let Some(parent) =
                by_id.get(&(admission.trace.as_slice(), way.last()?.parent.as_slice()))
            {
                // No trace of ours is deeper; one that goes round must end here.
                if way.len() > 32 {
                    return None;
                }
                way.push(parent);
            }
            let is_call = |span: &Span| {
                span.service == "wherry-gateway" && span.action == "StartReplicationJob"
            };
            let runs = |span: &&Span| span.service == "wherry-worker" && span.name == "run";
            (is_call(way.last()?) && way.iter().any(runs)).then_some(way)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: u8, id: u8, parent: u8, service: &str, name: &str, action: &str) -> Span {
        Span {
            trace: vec![trace],
            id: vec![id],
            parent: if parent == 0 {
                Vec::new()
            } else {
                vec![parent]
            },
            service: service.to_owned(),
            name: name.to_owned(),
            action: action.to_owned(),
        }
    }

    fn sound() -> Vec<Span> {
        vec![
            span(1, 3, 2, "wherry-receiver", "receiver.admit", ""),
            span(1, 2, 1, "wherry-worker", "run", ""),
            span(1, 1, 0, "wherry-gateway", "api call", "StartReplicationJob"),
            span(
                2,
                4,
                0,
                "wherry-gateway",
                "api call",
                "DescribeReplicationJobs",
            ),
        ]
    }

    type Breaking = fn(&mut Vec<Span>);

    #[test]
    fn a_way_is_whole_or_it_is_none() {
        assert_eq!(way_of_a_start(&sound()).map(|way| way.len()), Some(3));
        let broken: [(&str, Breaking); 6] = [
            ("the worker is in another trace", |spans| {
                spans[1].trace = vec![2]
            }),
            ("the receiver is in another trace", |spans| {
                spans[0].trace = vec![2]
            }),
            ("nobody caused the run", |spans| {
                spans[1].parent = Vec::new()
            }),
            ("another call began it", |spans| {
                spans[2].action = "CreateReplicationJob".to_owned();
            }),
            ("no worker is on the way", |spans| {
                spans[1].name = "sweep".to_owned()
            }),
            ("the spans go round", |spans| spans[2].parent = vec![3]),
        ];
        for (what, break_it) in broken {
            let mut spans = sound();
            break_it(&mut spans);
            assert_eq!(way_of_a_start(&spans), None, "{what}");
        }
    }
}
