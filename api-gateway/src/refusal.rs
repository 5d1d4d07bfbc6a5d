//! Error answers: code, sentence and HTTP status as SDKs expect them (SMC API §1, §3.4, §4.1, §6).

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;
use smc::model::AccessDeniedDetail;
use store::{ErrorKind, StoreError};

/// An error answer, in the form that the caller reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// The stable code.
    pub code: Cow<'static, str>,
    /// The sentence.
    pub message: String,
    /// Time after which the same call may be accepted, if known.
    pub retry_after: Option<Duration>,
    /// `AccessDeniedDetail`: the kind of policies that did not allow the call.
    pub access_denied: Option<Box<AccessDeniedDetail>>,
}

impl Refusal {
    /// Makes a refusal with HTTP status 400, as most are.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: code.into(),
            message: message.into(),
            retry_after: None,
            access_denied: None,
        }
    }

    fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Refuses a call without a required parameter.
    pub fn missing(parameter: &str) -> Self {
        Self::new(
            format!("Missing{parameter}"),
            format!("{parameter} is mandatory for this action."),
        )
    }

    /// Refuses a parameter that breaks its rule. `because` is a sentence that says what must be true.
    pub fn invalid(parameter: &str, because: impl AsRef<str>) -> Self {
        Self::new(
            format!("Invalid{parameter}"),
            format!(
                "Specified parameter {parameter} is not valid. {}",
                because.as_ref()
            ),
        )
    }

    /// Refuses an id that names nothing of this tenant. The answer is the same for another tenant's id and for one that
    /// nobody has.
    pub fn not_found(parameter: &str) -> Self {
        Self::new(
            format!("Invalid{parameter}.NotFound"),
            format!("The specified {parameter} does not exist."),
        )
        .with_status(StatusCode::NOT_FOUND)
    }

    /// Refuses a call if no operation has this name, or the path is neither `/` nor the operation's.
    pub fn unknown_action() -> Self {
        Self::new(
            "InvalidAction.NotFound",
            "Specified api is not found, please check your url and method.",
        )
        .with_status(StatusCode::NOT_FOUND)
    }

    /// Refuses a call that is larger than the limits.
    pub fn too_large(what: &str) -> Self {
        Self::new(
            "RequestTooLarge",
            format!("The request is too large: {what}."),
        )
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// Returns true for a call beyond the limits of its account.
    pub fn is_throttling(&self) -> bool {
        self.code.starts_with("Throttling.")
    }

    /// Refuses a call beyond the rate of its account.
    pub fn throttled(code: &'static str, message: &str, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..Self::new(code, message)
        }
    }

    /// Refuses a call that the caller's policies do not allow.
    pub fn no_permission(message: String, detail: AccessDeniedDetail) -> Self {
        Self {
            access_denied: Some(Box::new(detail)),
            ..Self::new("NoPermission", message)
        }
        .with_status(StatusCode::FORBIDDEN)
    }

    /// Refuses a range that the file does not have.
    pub fn range(message: String) -> Self {
        Self::new("InvalidRange", message).with_status(StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Refuses an access key that does not exist.
    pub fn unknown_access_key() -> Self {
        Self::new(
            "InvalidAccessKeyId.NotFound",
            "Specified access key is not found.",
        )
        .with_status(StatusCode::NOT_FOUND)
    }

    /// Reports a defect of ours; the log has the cause under the call's request id.
    pub fn internal() -> Self {
        Self::new(
            "InternalError",
            "An error occurred while processing your request. Please try again. If the problem still exists, please submit a ticket.",
        )
        .with_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Reports that Postgres is away or busy, or that the call took too long.
    pub fn unavailable() -> Self {
        Self::new(
            "ServiceUnavailable",
            "The request has failed due to a temporary failure of the server.",
        )
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl From<StoreError> for Refusal {
    /// Logs a failed statement. This is the one place that does, because the outcome of the call is decided here.
    fn from(error: StoreError) -> Self {
        let causes = causes(&error);
        match error.kind() {
            ErrorKind::Retry => {
                tracing::warn!(error = causes, "a call failed: Postgres is away or busy");
                Self::unavailable()
            }
            ErrorKind::Conflict | ErrorKind::Corrupt | ErrorKind::Internal => {
                tracing::error!(error = causes, "a call failed");
                Self::internal()
            }
        }
    }
}

/// Writes an error and all its causes in one line.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
