//! What an operator sees: every expression of the dashboards against live metrics, and one trace from the API call to the receiver.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions};
use testkit::{expressions, wait};
use tokio_stream::wrappers::TcpListenerStream;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A span that arrived: its trace, the process that made it, and its name.
type Span = (Vec<u8>, String, String);

#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut spans = self.0.lock().expect("no holder panics");
        for resource in request.into_inner().resource_spans {
            let service = resource
                .resource
                .into_iter()
                .flat_map(|resource| resource.attributes)
                .find(|attribute| attribute.key == "service.name")
                .map(|attribute| format!("{:?}", attribute.value))
                .unwrap_or_default();
            for span in resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                spans.push((span.trace_id, service.clone(), span.name));
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start(&self) -> anyhow::Result<String> {
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

    /// The processes that have spans in one trace with `StartReplicationJob`.
    fn processes_of_a_start(&self) -> BTreeSet<String> {
        let spans = self.0.lock().expect("no holder panics");
        let traces: BTreeSet<&Vec<u8>> = spans
            .iter()
            .filter(|(_, service, _)| service.contains("wherry-receiver"))
            .map(|(trace, _, _)| trace)
            .collect();
        spans
            .iter()
            .filter(|(trace, _, _)| traces.contains(trace))
            .filter_map(|(_, service, _)| service.split('"').nth(1).map(str::to_owned))
            .collect()
    }
}

#[tokio::test]
async fn dashboards_alerts_and_traces_show_a_migration() -> anyhow::Result<()> {
    let collector = Collector::default();
    let environment = vec![(
        "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
        collector.start().await?,
    )];
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_wherry"));
    let cluster = Cluster::start(ClusterConfig {
        binary,
        workers: 1,
        environment,
    })
    .await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(&cluster, "seen", &[24 * MIB]).await?;
    let job = source
        .create_job(&cluster, "watched", &JobOptions::default())
        .await?;
    job.start().await?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;

    let wanted: BTreeSet<String> = ["wherry-gateway", "wherry-worker", "wherry-receiver"]
        .map(str::to_owned)
        .into_iter()
        .collect();
    wait::until(
        PATIENCE,
        "one trace holds spans of gateway, worker and receiver",
        async || Ok(collector.processes_of_a_start().is_superset(&wanted)),
    )
    .await
    .with_context(|| format!("seen: {:?}", collector.processes_of_a_start()))?;

    // Live metrics of all roles together; labels of what has not happened yet come from the program's own list.
    let mut live = expressions::Shown::new();
    for role in ["gateway", "scheduler", "worker-1"] {
        live.extend(expressions::shown_by(&cluster.metrics(role).await?));
    }
    let promised = expressions::promised();
    for (name, labels) in &live {
        let known = promised
            .get(name)
            .with_context(|| format!("{name} is shown but not in the list of metrics"))?;
        let strange: Vec<&String> = labels
            .difference(known)
            .filter(|label| *label != "le")
            .collect();
        ensure!(
            strange.is_empty(),
            "{name} is shown with labels that the list does not have: {strange:?}"
        );
    }
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for expression in expressions::of_dashboards(&deploy.join("grafana/dashboards"))? {
        expressions::check(&expression, &promised)?;
    }
    for metric in [
        "wherry_api_request_seconds_bucket",
        "wherry_jobs",
        "wherry_job_transitions_total",
        "wherry_job_start_seconds_bucket",
        "wherry_run_seconds_count",
        "wherry_run_phase_seconds_bucket",
        "wherry_transfer_bytes_total",
        "wherry_outbox_rows",
        "wherry_relay_published_total",
        "wherry_leases_claimed_total",
        "wherry_worker_slots_limit",
        "wherry_agents",
        "wherry_dependency_up",
    ] {
        ensure!(
            live.contains_key(metric),
            "after a migration {metric} is shown by somebody"
        );
    }
    Ok(())
}
