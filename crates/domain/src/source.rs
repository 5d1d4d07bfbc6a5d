//! The state of a source (SMC API §5.3), derived from the facts about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Interval between the reports of an agent.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Silence after which a source is offline: three reports missed.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(90);

/// The state of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceState {
    /// The source's agent is silent or reports an error.
    Unavailable,
    /// The source's agent reports and the source has no unfinished job.
    Available,
    /// The source has an unfinished job.
    InUse,
    /// The source is being removed.
    Deleting,
}

impl SourceState {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Unavailable,
        Self::Available,
        Self::InUse,
        Self::Deleting,
    ];

    /// Derives the state from the facts. An offline source with a job is Unavailable, not InUse, because Start must
    /// fail for it.
    pub fn derive(deleting: bool, healthy: bool, has_unfinished_job: bool) -> Self {
        match (deleting, healthy, has_unfinished_job) {
            (true, _, _) => Self::Deleting,
            (false, false, _) => Self::Unavailable,
            (false, true, true) => Self::InUse,
            (false, true, false) => Self::Available,
        }
    }

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "Unavailable",
            Self::Available => "Available",
            Self::InUse => "InUse",
            Self::Deleting => "Deleting",
        }
    }
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no state of a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not Unavailable, Available, InUse or Deleting")]
pub struct UnknownSourceState(String);

impl FromStr for SourceState {
    type Err = UnknownSourceState;

    fn from_str(text: &str) -> Result<Self, UnknownSourceState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownSourceState(text.to_owned()))
    }
}
