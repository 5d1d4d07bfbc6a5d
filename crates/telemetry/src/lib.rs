//! Logs, traces and metrics.
//!
//! - [`init()`] sets up logging and, when an endpoint is given, the export of traces. Telemetry can't slow down or stop
//!   the process: queues are bounded, and a dead collector costs nothing but its spans.
//! - [`Metric`] names every metric. `docs/metrics.md` is generated from it.
//! - [`trace_context`] carries a trace through messages, gRPC calls and rows.

mod init;
mod metric;
mod process;
mod recorder;

pub mod catalogue;
pub mod trace_context;

pub use init::{Guard, LogFormat, TelemetryConfig, TelemetryError, init};
pub use metric::{Kind, Label, Metric, Spec};
pub use metrics::{Counter, Gauge, Histogram};
pub use recorder::{counter, gauge, histogram, render};
