//! Reasons for which a call did not succeed.

use url::Url;

/// The gateway's own answer that it did not do what the call requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code}, request {request_id})")]
pub struct Refusal {
    /// The stable code, such as `ReplicationJob.InvalidStatus`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Names the call in the gateway's log.
    pub request_id: String,
    /// HTTP status of the answer.
    pub http_status: u16,
}

/// Reason for which a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The gateway answered with an error.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No connection could be made.
    #[error("can't reach {endpoint}: is the gateway running? check --endpoint")]
    Unreachable {
        /// The address that was tried.
        endpoint: Url,
        /// The connection's error.
        #[source]
        source: reqwest::Error,
    },
    /// The gateway did not answer in time.
    #[error(
        "{endpoint} did not answer in time: the gateway may be busy, or its database may be down; try again"
    )]
    TimedOut {
        /// The address that was called.
        endpoint: Url,
    },
    /// The connection broke before the answer was whole.
    #[error("the connection to {endpoint} broke before the answer was complete; try again")]
    Interrupted {
        /// The address that was called.
        endpoint: Url,
        /// The connection's error.
        #[source]
        source: reqwest::Error,
    },
    /// The answer did not come from a service that speaks this API.
    #[error(
        "{endpoint} answered with HTTP {http_status} and no SMC answer: does --endpoint point to a Wherry gateway?"
    )]
    NotSmc {
        /// The address that was called.
        endpoint: Url,
        /// HTTP status of the answer.
        http_status: u16,
    },
}

impl CallError {
    /// The gateway's code, when it was the gateway that refused.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str())
    }

    /// The gateway's answer, when it was the gateway that refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Returns true if the same call may succeed in a moment: the gateway is away, busy or throttling.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                refusal.http_status >= 500 || refusal.code.starts_with("Throttling")
            }
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Interrupted { .. } => true,
            Self::NotSmc { .. } => false,
        }
    }

    pub(crate) fn from_http(endpoint: &Url, source: reqwest::Error) -> Self {
        let endpoint = endpoint.clone();
        if source.is_timeout() {
            Self::TimedOut { endpoint }
        } else if source.is_connect() {
            Self::Unreachable { endpoint, source }
        } else {
            Self::Interrupted { endpoint, source }
        }
    }
}
