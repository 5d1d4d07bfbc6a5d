//! What processes tell each other through NATS. A message is a hint: it names a row, and whoever gets it reads that row.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::job::{Event, State};
use crate::{Epoch, ImageId, JobId, Run, TenantId};

/// W3C trace context, as key and value of message headers.
pub type TraceHeaders = HashMap<String, String>;

/// A message, as the outbox keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// For whoever does the work; on the work queue.
    Command(Command),
    /// For whoever watches; on the stream of changes.
    JobChanged(JobChanged),
}

/// Something to look at, for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The job has a slot and waits for a worker.
    StartRun {
        /// The job.
        job_id: JobId,
        /// The run that is to start.
        run: Run,
    },
    /// The job's intent is stop.
    StopRun {
        /// The job.
        job_id: JobId,
    },
    /// The job is being deleted: release what it holds.
    RemoveJob {
        /// The job.
        job_id: JobId,
    },
    /// The image is being deleted.
    RemoveImage {
        /// The image.
        image_id: ImageId,
    },
}

/// A job has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChanged {
    /// Whose job.
    pub tenant: TenantId,
    /// Which job.
    pub job_id: JobId,
    /// What happened to it.
    pub event: Event,
    /// The state before.
    pub from: State,
    /// The state since.
    pub to: State,
    /// The run that it is about; 0 before the first.
    pub run: Run,
    /// The job's highest epoch at that time.
    pub epoch: Epoch,
}
