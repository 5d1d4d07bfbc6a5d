//! The process's one metrics recorder, and the only ways to a metric.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;
use crate::{Kind, Metric};

/// How often buffered samples of histograms are folded into their buckets when nobody scrapes; without it they would pile up.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// The handle of a counter. Keep it where the call is hot.
///
/// Labels are given in the order of [`Metric::spec`]; tests panic on others.
pub fn counter(metric: Metric, labels: &[(&'static str, &str)]) -> Counter {
    install();
    check(metric, labels, matches!(metric.spec().kind, Kind::Counter));
    metrics::counter!(metric.spec().name, owned(labels))
}

/// The handle of a gauge; see [`counter`].
pub fn gauge(metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
    install();
    check(metric, labels, matches!(metric.spec().kind, Kind::Gauge));
    metrics::gauge!(metric.spec().name, owned(labels))
}

/// The handle of a histogram; see [`counter`]. Values are in the unit of the metric's name.
pub fn histogram(metric: Metric, labels: &[(&'static str, &str)]) -> Histogram {
    install();
    check(
        metric,
        labels,
        matches!(metric.spec().kind, Kind::Histogram(_)),
    );
    metrics::histogram!(metric.spec().name, owned(labels))
}

/// All metrics of this process in Prometheus' text format.
pub fn render() -> String {
    let handle = install();
    process::record();
    handle.render()
}

/// Installs the recorder when it is not there yet. Every way to a metric calls it, so that no sample is lost to the order of a start.
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

/// Gives the recorder all help texts, and each counter without labels its zero: an alert on a rate needs the zero before the first event.
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

/// A wrong label would make a series that no dashboard finds.
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
