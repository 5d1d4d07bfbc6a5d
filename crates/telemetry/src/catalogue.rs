//! Renders `docs/metrics.md` from the enum.

use std::fmt::Write;

use crate::{Kind, Metric};

/// Returns all metrics as a Markdown document.
pub fn as_markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nMade from `crates/telemetry/src/metric.rs`; `UPDATE=1 cargo nextest run -p telemetry` rewrites it.\n\n\
         Every role serves them at `/metrics`. A histogram adds `_bucket`, `_sum` and `_count` to its name.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in Metric::ALL {
        let spec = metric.spec();
        let kind = match spec.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = spec
            .labels
            .iter()
            .map(|label| format!("`{}`: {}", label.name, label.values))
            .collect::<Vec<_>>()
            .join("; ");
        writeln!(
            text,
            "| `{}` | {kind} | {labels} | {} |",
            spec.name, spec.help
        )
        .expect("writing to a string does not fail");
    }
    text
}
