//! The last request of the API for a job.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The last request of the API for a job, written with a version that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Nothing is asked yet, or everything that was asked is done.
    Rest,
    /// Complete the run.
    Run,
    /// Stop, and keep the copied data.
    Stop,
    /// Remove the job and its resources.
    Delete,
}

impl Intent {
    /// Every intent.
    pub const ALL: [Self; 4] = [Self::Rest, Self::Run, Self::Stop, Self::Delete];

    /// Returns the name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Run => "run",
            Self::Stop => "stop",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Intent {
    type Err = super::UnknownState;

    fn from_str(text: &str) -> Result<Self, super::UnknownState> {
        Self::ALL
            .into_iter()
            .find(|intent| intent.as_str() == text)
            .ok_or_else(|| super::UnknownState(text.to_owned()))
    }
}
