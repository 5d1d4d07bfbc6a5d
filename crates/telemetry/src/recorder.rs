//! The process's one metrics recorder, and the only access to metrics.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;
use crate::{Kind, Metric};

/// Interval at which buffered samples of histograms are folded into their buckets. Without it they would accumulate
/// while the process is not scraped.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Returns the handle of a counter. Keep it if the call is hot.
///
/// Labels are given in the order of [`Metric::spec`]; tests panic on others.
pub fn counter(metric: Metric, labels: &[(&'static str, &str)]) -> Counter {
    install();
    check(metric, labels, matches!(metric.spec().kind, Kind::Counter));
    metrics::counter!(metric.spec().name, owned(labels))
}

/// Returns the handle of a gauge; see [`counter`].
pub fn gauge(metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
    install();
    check(metric, labels, matches!(metric.spec().kind, Kind::Gauge));
    metrics::gauge!(metric.spec().name, owned(labels))
}

/// Returns the handle of a histogram; see [`counter`]. Values are in the unit of the metric's name.
pub fn histogram(metric: Metric, labels: &[(&'static str, &str)]) -> Histogram {
    install();
    check(
        metric,
        labels,
        matches!(metric.spec().kind, Kind::Histogram(_)),
    );
    metrics::histogram!(metric.spec().name, owned(labels))
}

/// Returns all metrics of this process in Prometheus' text format.
pub fn render() -> String {
    let handle = install();
    process::record();
    handle.render()
}

/// Installs the recorder if it is not there yet. Every access to a metric calls this, so that no sample is lost to the
/// order of a start.
pub(crate) fn install() -> &'static PrometheusHandle {
    HANDLE.get_or_init(|| {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder)
            .expect("only this function sets a recorder, and it runs once");
        describe();
        keep_up(handle.clone());
        handle
    })
}

fn builder() -> PrometheusBuilder {
    Metric::ALL
        .iter()
        .fold(PrometheusBuilder::new(), |builder, metric| {
            let spec = metric.spec();
            match spec.kind {
                Kind::Counter | Kind::Gauge => builder,
                // Without buckets the exporter renders a summary, and every `_bucket` of the dashboards stays empty.
                Kind::Histogram(buckets) => builder
                    .set_buckets_for_metric(Matcher::Full(spec.name.to_owned()), buckets)
                    .expect("a test checks that no list of buckets is empty"),
            }
        })
}

/// Gives the recorder all help texts, and sets each counter without labels to zero. An alert on a rate needs the zero
/// before the first event.
fn describe() {
    for metric in Metric::ALL {
        let spec = metric.spec();
        match spec.kind {
            Kind::Counter => {
                metrics::describe_counter!(spec.name, spec.help);
                if spec.labels.is_empty() {
                    metrics::counter!(spec.name).increment(0);
                }
            }
            Kind::Gauge => metrics::describe_gauge!(spec.name, spec.help),
            Kind::Histogram(_) => metrics::describe_histogram!(spec.name, spec.help),
        }
    }
}

fn keep_up(handle: PrometheusHandle) {
    let started = std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                handle.run_upkeep();
            }
        });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for the upkeep of metrics: memory grows until somebody scrapes /metrics");
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<metrics::Label> {
    labels
        .iter()
        .map(|(name, value)| metrics::Label::new(*name, (*value).to_owned()))
        .collect()
}

/// Panics in debug builds on a wrong label, which would make a series that no dashboard finds.
fn check(metric: Metric, labels: &[(&'static str, &str)], kind_fits: bool) {
    debug_assert!(kind_fits, "{metric:?} is of another kind");
    debug_assert!(
        labels.iter().map(|(name, _)| *name).eq(metric
            .spec()
            .labels
            .iter()
            .map(|label| label.name)),
        "{metric:?} has the labels {:?}, not {labels:?}",
        metric.spec().labels,
    );
}
