//! Sets up logs and traces once, at the start of a process.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};
use url::Url;

use crate::{process, recorder};

/// Longest time that one export of spans may take before its spans are dropped.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time that the last export at the end of the process may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Destinations and form of logs and traces.
#[derive(Debug, Clone, clap::Args)]
pub struct TelemetryConfig {
    /// Name of the process in traces, such as `wherry-worker`. Set by the program, not by the operator.
    #[arg(skip = "wherry")]
    pub service_name: &'static str,
    /// Form of the log lines on standard error.
    #[arg(long, env = "WHERRY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// Log lines to write: a level (`error`, `warn`, `info`, `debug`, `trace`), or a list such as `info,worker=debug`.
    #[arg(long, env = "WHERRY_LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
    /// OTLP/gRPC endpoint that traces are sent to, such as `http://127.0.0.1:4317`, or `https://…` with a certificate
    /// that this machine trusts. Without it no traces are made.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<Url>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service_name: "wherry",
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            otlp_endpoint: None,
        }
    }
}

/// Forms of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line, for a log collector.
    Json,
}

/// Reasons for which telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log level is neither a level nor a list of `target=level`.
    #[error(
        "{text:?} is not a log level: use error, warn, info, debug or trace, or a list such as info,worker=debug"
    )]
    ReadingLogLevel {
        /// The value that was given.
        text: String,
        /// The parser's error.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The endpoint cannot be an OTLP endpoint.
    #[error("traces cannot be sent to {endpoint}")]
    MakingExporter {
        /// The value that was given.
        endpoint: Url,
        /// The exporter's error.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Logging was set up before.
    #[error("logging is already set up in this process")]
    Installing(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry alive; sends the last spans when it is shut down or dropped.
#[must_use = "dropping the guard ends the export of traces"]
#[derive(Debug)]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
}

/// Sets up logs, traces and metrics of this process. With an OTLP endpoint, it must be called inside a tokio runtime.
///
/// # Errors
/// The log level or the endpoint cannot be parsed, or logging was set up before. An endpoint that does not answer is no
/// error, now or later: spans wait in a bounded queue and are dropped when it is full.
pub fn init(config: &TelemetryConfig) -> Result<Guard, TelemetryError> {
    process::mark_start();
    recorder::install();
    let traces = config
        .otlp_endpoint
        .as_ref()
        .map(|endpoint| trace_provider(config.service_name, endpoint))
        .transpose()?;
    let layers = [
        Some(log_layer(config)?),
        traces
            .as_ref()
            .map(|provider| trace_layer(config.service_name, provider)),
    ];
    tracing_subscriber::registry()
        .with(layers.into_iter().flatten().collect::<Vec<_>>())
        .try_init()
        .map_err(TelemetryError::Installing)?;
    Ok(Guard { traces })
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log_layer(config: &TelemetryConfig) -> Result<BoxedLayer, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|source| TelemetryError::ReadingLogLevel {
            text: config.log_level.clone(),
            source,
        })?
        // The exporter repeats its error every few seconds while the collector is unreachable.
        .add_directive(directive("opentelemetry=off"))
        .add_directive(directive("opentelemetry_sdk=off"))
        .add_directive(directive("opentelemetry-otlp=off"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colours in a file are noise.
        .with_ansi(std::io::stderr().is_terminal());
    Ok(match config.log_format {
        LogFormat::Text => lines
            .fmt_fields(PrintableFields::default())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    })
}

/// Writes messages and fields as one line that is safe for a terminal: they contain text from tenants, agents and
/// tools.
#[derive(Debug, Default)]
struct PrintableFields {
    fields: DefaultFields,
}

impl<'writer> FormatFields<'writer> for PrintableFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut text = String::new();
        self.fields.format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&domain::printable(&text))
    }
}

/// Returns the layer that exports spans of our own code from `info` up. Spans of the HTTP/2 stack are left out: the
/// exporter itself runs on that stack, and each export would make spans for the next.
fn trace_layer(service_name: &'static str, provider: &SdkTracerProvider) -> BoxedLayer {
    let filter = [
        "h2=off",
        "hyper=off",
        "hyper_util=off",
        "tonic=off",
        "tower=off",
        "opentelemetry=off",
        "opentelemetry_sdk=off",
    ]
    .into_iter()
    .fold(EnvFilter::new("info"), |filter, text| {
        filter.add_directive(directive(text))
    });
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service_name))
        .with_filter(filter)
        .boxed()
}

fn directive(text: &str) -> tracing_subscriber::filter::Directive {
    text.parse()
        .expect("the directives in this file are well formed")
}

fn trace_provider(
    service_name: &'static str,
    endpoint: &Url,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .with_timeout(EXPORT_TIMEOUT);
    // Over TLS, the collector's certificate must chain to an authority that this machine trusts.
    let exporter = if endpoint.scheme() == "https" {
        exporter.with_tls_config(ClientTlsConfig::new().with_native_roots())
    } else {
        exporter
    };
    let exporter = exporter
        .build()
        .map_err(|source| TelemetryError::MakingExporter {
            endpoint: endpoint.clone(),
            source,
        })?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service_name).build())
        .build())
}

impl Guard {
    /// Sends the remaining traces, for at most five seconds.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.traces.take() {
            // A panic of that thread costs only the last spans, as an error here does.
            let _ = tokio::task::spawn_blocking(move || flush(&provider)).await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.traces.take() {
            flush(&provider);
        }
    }
}

fn flush(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
        tracing::debug!(%error, "the last traces were not sent");
    }
}
