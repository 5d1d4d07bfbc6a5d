//! Runs and epochs: the execution of a job, and the owner of that execution.
//!
//! The epoch is the fencing number of a job. It grows with every lease that is granted and never repeats, over all runs
//! of the job. Of two epochs of one job, the larger one belongs to the newer owner.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The fencing number of a job; the first lease of a job has epoch 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One execution of a job, counted from 1; 0 is a job that never ran.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Run(pub i32);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
