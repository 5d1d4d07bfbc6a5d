//! The trace of a call, for the messages that it causes.

use domain::message::TraceHeaders;

/// Returns the current span's context, for the rows and messages that the call leaves behind.
pub fn headers() -> TraceHeaders {
    telemetry::trace_context::headers()
}
