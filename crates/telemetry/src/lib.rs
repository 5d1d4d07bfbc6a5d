//! Logs, traces and metrics.
//!
//! - [`init()`] sets up logging and, when an endpoint is given, the export of traces. Nothing here can slow down or stop the
//!   process that it watches: queues are bounded, a dead collector costs its spans and nothing else.
//! - [`Metric`] names every metric that there is. `docs/metrics.md` is made from it.
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
