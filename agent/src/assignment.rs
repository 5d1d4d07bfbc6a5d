//! The disks that this source must send, and their receivers.
//!
//! The gateway's list decides. A new assignment in the list is started. An assignment of a higher epoch replaces the
//! older one. An assignment that is missing from the list is dropped. Dropping loses nothing: the receiver keeps what
//! is on its disk.

mod attempt;
mod board;
mod send;

use std::collections::BTreeMap;
use std::convert::Infallible;

use domain::{Epoch, JobId, Run};
use proto::agent as wire;
use service::{Policy, Shutdown, TaskGroup};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use board::Board;
pub(crate) use send::Sending;

/// Identity of an assignment. A job has one assignment at a time, that of the highest epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub job_id: JobId,
    pub run: Run,
    pub epoch: Epoch,
}

impl Key {
    fn of(assignment: &wire::Assignment) -> Option<Self> {
        Some(Self {
            job_id: assignment.job_id.parse().ok()?,
            run: Run(assignment.run),
            epoch: Epoch(assignment.epoch),
        })
    }
}

/// The current assignments, each with a task that works on it.
#[derive(Debug)]
pub(crate) struct Assignments {
    tasks: TaskGroup,
    sending: Sending,
    current: BTreeMap<JobId, Current>,
}

#[derive(Debug)]
struct Current {
    key: Key,
    /// The assignment as the gateway's latest list has it: limits can change while the disks are sent.
    assignment: watch::Sender<wire::Assignment>,
    dropped: CancellationToken,
}

/// The task of one assignment.
#[derive(Debug, Clone)]
struct Task {
    sending: Sending,
    key: Key,
    assignment: watch::Receiver<wire::Assignment>,
    dropped: CancellationToken,
    shutdown: Shutdown,
}

impl Task {
    /// Sends until the assignment is dropped or the agent drains.
    async fn until_told(self) -> Result<(), Infallible> {
        let cancel = CancellationToken::new();
        let sent = self
            .sending
            .to_the_end(&self.key, self.assignment, cancel.clone());
        let told = async {
            tokio::select! {
                () = self.dropped.cancelled() => (),
                () = self.shutdown.draining() => (),
            }
            cancel.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = sent => (),
            () = told => (),
        }
        Ok(())
    }
}

impl Assignments {
    pub fn new(tasks: TaskGroup, sending: Sending) -> Self {
        Self {
            tasks,
            sending,
            current: BTreeMap::new(),
        }
    }

    /// Makes the assignments equal to the gateway's list.
    pub fn become_those(&mut self, list: Vec<wire::Assignment>) {
        let list: Vec<(Key, wire::Assignment)> = list
            .into_iter()
            .filter_map(|assignment| {
                let key = Key::of(&assignment);
                if key.is_none() {
                    tracing::error!(
                        job_id = assignment.job_id,
                        "an assignment names no job: is the agent older than the gateway?"
                    );
                }
                Some((key?, assignment))
            })
            .collect();
        let gone: Vec<JobId> = self
            .current
            .keys()
            .filter(|job_id| !list.iter().any(|(key, _)| key.job_id == **job_id))
            .cloned()
            .collect();
        for job_id in gone {
            self.end(&job_id, "the assignment is over");
        }
        for (key, assignment) in list {
            self.begin_or_update(key, assignment);
        }
    }

    /// Drops every assignment.
    pub fn drop_all(&mut self) {
        self.become_those(Vec::new());
    }

    fn begin_or_update(&mut self, key: Key, assignment: wire::Assignment) {
        match self.current.get(&key.job_id) {
            Some(current) if current.key == key => {
                current.assignment.send_if_modified(|known| {
                    let is_changed = *known != assignment;
                    *known = assignment;
                    is_changed
                });
            }
            // An answer that was overtaken by a newer one.
            Some(current) if current.key.epoch > key.epoch => (),
            Some(_) => {
                self.end(&key.job_id, "a newer assignment takes its place");
                self.begin(key, assignment);
            }
            None => self.begin(key, assignment),
        }
    }

    fn begin(&mut self, key: Key, assignment: wire::Assignment) {
        let (sender, receiver) = watch::channel(assignment);
        let dropped = CancellationToken::new();
        let task = Task {
            sending: self.sending.clone(),
            key: key.clone(),
            assignment: receiver,
            dropped: dropped.clone(),
            shutdown: self.tasks.shutdown().clone(),
        };
        // A panic is an error of ours, which another attempt may avoid.
        let policy = Policy::restart().finishes();
        self.tasks
            .start("send", policy, move || task.clone().until_told());
        let job_id = key.job_id.clone();
        let current = Current {
            key,
            assignment: sender,
            dropped,
        };
        self.current.insert(job_id, current);
    }

    fn end(&mut self, job_id: &JobId, reason: &str) {
        if let Some(current) = self.current.remove(job_id) {
            let key = &current.key;
            tracing::info!(job_id = %key.job_id, run = %key.run, epoch = %key.epoch, reason, "sending ends");
            current.dropped.cancel();
            self.sending.board.forget(key);
        }
    }
}
