//! The agent's part of a trace goes along with each call.

use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Request, Status};

/// Adds the current span's context to the call.
#[expect(
    clippy::unnecessary_wraps,
    reason = "an interceptor may refuse a call; this one does not"
)]
pub(super) fn inject(mut request: Request<()>) -> Result<Request<()>, Status> {
    for (name, value) in telemetry::trace_context::headers() {
        if let (Ok(name), Ok(value)) = (
            MetadataKey::from_bytes(name.as_bytes()),
            MetadataValue::try_from(value),
        ) {
            request.metadata_mut().insert(name, value);
        }
    }
    Ok(request)
}
