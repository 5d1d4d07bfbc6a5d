//! The messages between processes, sent through NATS. A message is a hint: it names a row, and its receiver reads that
//! row.

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
    /// A command for a worker, on the work queue.
    Command(Command),
    /// A change for those who watch, on the stream of changes.
    JobChanged(JobChanged),
}

/// A hint for a worker to read a row.
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
    /// The job is being deleted; the worker releases its resources.
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
    /// The job's owner.
    pub tenant: TenantId,
    /// The job.
    pub job_id: JobId,
    /// The event that changed the job.
    pub event: Event,
    /// The state before the event.
    pub from: State,
    /// The state after the event.
    pub to: State,
    /// The run concerned; 0 before the first.
    pub run: Run,
    /// The job's highest epoch at that time.
    pub epoch: Epoch,
}
