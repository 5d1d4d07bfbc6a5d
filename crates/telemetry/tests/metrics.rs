//! The metrics as Prometheus and an operator receive them.

use std::collections::BTreeSet;
use std::path::Path;

use telemetry::{Kind, Metric};

fn is_well_formed(name: &str) -> bool {
    !name.is_empty()
        && name.split('_').all(|word| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}

#[test]
fn names_are_unique_and_well_formed() {
    let names: BTreeSet<_> = Metric::ALL
        .iter()
        .map(|metric| metric.spec().name)
        .collect();
    assert_eq!(names.len(), Metric::ALL.len(), "two metrics share a name");
    for metric in Metric::ALL {
        let spec = metric.spec();
        let name = spec.name;
        assert!(
            name.starts_with("wherry_") && is_well_formed(name),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            spec.kind == Kind::Counter,
            "{name}: counters, and only they, end in _total"
        );
        assert!(
            spec.help.ends_with('.') && !spec.help.contains('|'),
            "{name}: help is a sentence that fits a table"
        );
        for suffix in ["_bucket", "_sum", "_count"] {
            assert!(
                !name.ends_with(suffix),
                "{name}: {suffix} is what a histogram adds"
            );
        }
        if let Kind::Histogram(buckets) = spec.kind {
            assert!(
                !buckets.is_empty() && buckets.is_sorted(),
                "{name}: buckets go up"
            );
            assert!(
                name.ends_with("_seconds") || name.ends_with("_bytes_per_second"),
                "{name}: a histogram names its unit"
            );
        }
    }
}

#[test]
fn labels_are_few_bounded_and_no_ids() {
    for metric in Metric::ALL {
        let spec = metric.spec();
        assert!(spec.labels.len() <= 3, "{}", spec.name);
        for label in spec.labels {
            assert!(is_well_formed(label.name), "{}: {}", spec.name, label.name);
            assert!(
                ![
                    "tenant",
                    "job",
                    "job_id",
                    "source_id",
                    "worker",
                    "run",
                    "epoch",
                    "le"
                ]
                .contains(&label.name),
                "{}: {} is an id, or taken",
                spec.name,
                label.name,
            );
        }
    }
}

#[test]
fn a_histogram_has_real_buckets() {
    telemetry::histogram(Metric::TimerLatenessSeconds, &[("kind", "start")]).record(0.2);
    let text = telemetry::render();
    assert!(
        text.contains(r#"wherry_timer_lateness_seconds_bucket{kind="start",le="0.25"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"wherry_timer_lateness_seconds_bucket{kind="start",le="0.1"} 0"#),
        "{text}"
    );
}

#[test]
fn a_counter_without_labels_is_there_before_its_first_event() {
    assert!(telemetry::render().contains("wherry_leases_claimed_total 0"));
}

#[test]
#[should_panic(expected = "has the labels")]
fn a_wrong_label_is_caught() {
    telemetry::counter(Metric::RunFailures, &[("reason", "x")]).increment(1);
}

#[test]
fn the_documentation_lists_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = telemetry::catalogue::as_markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).expect("docs/metrics.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/metrics.md is stale: UPDATE=1 cargo nextest run -p telemetry"
    );
}
