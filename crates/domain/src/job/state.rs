//! The states of a job, and the two status words that the API shows for each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The state of a job. `Status` and `BusinessStatus` of the API are both derived from it, so that no impossible pair
/// exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Created, not started.
    Ready,
    /// Started: waiting for a slot or a worker, or the instance is being created.
    Preparing,
    /// Disks are being copied.
    Syncing,
    /// The copy is interrupted and has no worker, because the agent is silent. The copied data is kept.
    Parked,
    /// The image is being created.
    Processing,
    /// The instance is being released.
    Cleaning,
    /// Stopped by the tenant; the copied data is kept.
    Stopped,
    /// The run failed; the copied data is kept.
    InError,
    /// An incremental job between two runs.
    Waiting,
    /// The image is delivered.
    Finished,
    /// The job's validity is over.
    Expired,
    /// The job's resources are being released; its row is deleted afterwards.
    Deleting,
}

/// The API's `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// See [`State::Ready`].
    Ready,
    /// One of the five running states.
    Running,
    /// See [`State::Stopped`].
    Stopped,
    /// See [`State::InError`].
    InError,
    /// See [`State::Waiting`].
    Waiting,
    /// See [`State::Finished`].
    Finished,
    /// See [`State::Expired`].
    Expired,
    /// See [`State::Deleting`].
    Deleting,
}

/// The API's `BusinessStatus`: the phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BusinessStatus {
    /// See [`State::Preparing`].
    Preparing,
    /// See [`State::Syncing`].
    Syncing,
    /// See [`State::Processing`].
    Processing,
    /// See [`State::Cleaning`].
    Cleaning,
}

/// The text names no state, status or intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state of a job")]
pub struct UnknownState(pub String);

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 12] = [
        Self::Ready,
        Self::Preparing,
        Self::Syncing,
        Self::Parked,
        Self::Processing,
        Self::Cleaning,
        Self::Stopped,
        Self::InError,
        Self::Waiting,
        Self::Finished,
        Self::Expired,
        Self::Deleting,
    ];

    /// Returns the name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Preparing => "preparing",
            Self::Syncing => "syncing",
            Self::Parked => "parked",
            Self::Processing => "processing",
            Self::Cleaning => "cleaning",
            Self::Stopped => "stopped",
            Self::InError => "in_error",
            Self::Waiting => "waiting",
            Self::Finished => "finished",
            Self::Expired => "expired",
            Self::Deleting => "deleting",
        }
    }

    /// Returns true if a copy is under way or may yet begin.
    pub fn may_copy(self) -> bool {
        match self {
            Self::Ready
            | Self::Preparing
            | Self::Syncing
            | Self::Parked
            | Self::Stopped
            | Self::InError
            | Self::Waiting => true,
            Self::Processing | Self::Cleaning | Self::Finished | Self::Expired | Self::Deleting => {
                false
            }
        }
    }

    /// Returns the API's `Status`.
    pub fn status(self) -> Status {
        match self {
            Self::Ready => Status::Ready,
            Self::Preparing | Self::Syncing | Self::Parked | Self::Processing | Self::Cleaning => {
                Status::Running
            }
            Self::Stopped => Status::Stopped,
            Self::InError => Status::InError,
            Self::Waiting => Status::Waiting,
            Self::Finished => Status::Finished,
            Self::Expired => Status::Expired,
            Self::Deleting => Status::Deleting,
        }
    }

    /// Returns the API's `BusinessStatus`, which has a meaning only while the job runs.
    pub fn business_status(self) -> Option<BusinessStatus> {
        match self {
            Self::Preparing => Some(BusinessStatus::Preparing),
            Self::Syncing | Self::Parked => Some(BusinessStatus::Syncing),
            Self::Processing => Some(BusinessStatus::Processing),
            Self::Cleaning => Some(BusinessStatus::Cleaning),
            Self::Ready
            | Self::Stopped
            | Self::InError
            | Self::Waiting
            | Self::Finished
            | Self::Expired
            | Self::Deleting => None,
        }
    }

    /// Returns true if a run is under way, with or without a slot.
    pub fn is_running(self) -> bool {
        self.status() == Status::Running
    }

    /// Returns true if the job still claims its source. A source has one unfinished job at most.
    pub fn is_unfinished(self) -> bool {
        !matches!(self, Self::Finished | Self::Deleting)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Running,
        Self::Stopped,
        Self::InError,
        Self::Waiting,
        Self::Finished,
        Self::Expired,
        Self::Deleting,
    ];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::InError => "InError",
            Self::Waiting => "Waiting",
            Self::Finished => "Finished",
            Self::Expired => "Expired",
            Self::Deleting => "Deleting",
        }
    }

    /// Returns the states that show this status.
    pub fn states(self) -> impl Iterator<Item = State> {
        State::ALL
            .into_iter()
            .filter(move |state| state.status() == self)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl BusinessStatus {
    /// Every business status, in the order of a run.
    pub const ALL: [Self; 4] = [
        Self::Preparing,
        Self::Syncing,
        Self::Processing,
        Self::Cleaning,
    ];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Syncing => "Syncing",
            Self::Processing => "Processing",
            Self::Cleaning => "Cleaning",
        }
    }

    /// Returns the state that shows this business status.
    pub fn state(self) -> State {
        match self {
            Self::Preparing => State::Preparing,
            Self::Syncing => State::Syncing,
            Self::Processing => State::Processing,
            Self::Cleaning => State::Cleaning,
        }
    }
}

impl fmt::Display for BusinessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BusinessStatus {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}
