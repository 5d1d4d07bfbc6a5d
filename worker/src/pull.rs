//! Reception of commands: no more than the worker has room for. Each command is brought to an end: done, obsolete,
//! postponed, or a dead letter.
//!
//! Only quick work is done while other commands wait. A run is a task with one of the worker's slots, a removal a task
//! with one of its few places. So the deletion of a large image delays neither the next start nor a stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Delivery, Letter, Received};
use domain::message::{Command, TraceHeaders};
use domain::{JobId, Run};
use service::{Policy, TaskGroup};
use store::lease::{Claim, Lease};
use telemetry::Metric;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::Error;
use crate::leases::Leases;
use crate::removal::{self, Removal};
use crate::run::{self, Context};

/// Longest wait of one request for commands.
const PULL_WAIT: Duration = Duration::from_secs(5);
/// Pause while all slots are used, and after NATS has failed.
const PULL_PAUSE: Duration = Duration::from_millis(200);
/// Pause before a command that can't be done now is redelivered. After a failure the pause doubles each time, up to the
/// longest.
const LATER: Duration = Duration::from_secs(5);
const LONGEST_LATER: Duration = Duration::from_secs(300);

/// Receives commands and starts the work that they request.
#[derive(Debug)]
pub(crate) struct Puller {
    context: Arc<Context>,
    leases: Leases,
    tasks: TaskGroup,
    slots: Arc<Semaphore>,
    removals: Arc<Semaphore>,
}

/// Outcome of a command.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Handled,
    /// Obsolete, or another worker's.
    Ignored,
    /// No room for it here, or another worker is doing it.
    Busy,
    /// It failed, for this reason.
    Failed(String),
}

impl Puller {
    pub(crate) fn new(context: Arc<Context>, leases: Leases, tasks: TaskGroup) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new(count as usize));
        Self {
            slots: places(context.config.slots),
            removals: places(context.config.removals),
            context,
            leases,
            tasks,
        }
    }

    /// Requests no more commands than there are free slots. Without slots nothing is requested, not even stops: a stop
    /// reaches its run by the next renewal.
    pub(crate) async fn pull(self: Arc<Self>) -> Result<(), Error> {
        let mut commands = self.context.bus.commands();
        loop {
            let free = self.slots.available_permits();
            let used = (self.context.config.slots as usize).saturating_sub(free);
            telemetry::gauge(Metric::WorkerSlotsUsed, &[]).set(used as f64);
            if free == 0 {
                tokio::time::sleep(PULL_PAUSE).await;
                continue;
            }
            match commands.next(free, PULL_WAIT).await {
                Ok(received) => {
                    for message in received {
                        Box::pin(self.take(message)).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no commands from NATS"
                    );
                    tokio::time::sleep(PULL_PAUSE).await;
                }
            }
        }
    }

    async fn take(self: &Arc<Self>, message: Received) {
        match message {
            Received::Undecodable(letter, reason) => {
                self.bury(&letter, &reason).await;
            }
            Received::Command(delivery) => match &delivery.command {
                Command::StartRun { job_id, run } => {
                    let done = self.start_run(job_id, *run, &delivery.headers).await;
                    self.conclude(&delivery, done).await;
                }
                Command::StopRun { job_id } => {
                    // Another worker's job: that worker learns of the stop by its renewal.
                    let done = if self.leases.look_soon(job_id) {
                        Done::Handled
                    } else {
                        Done::Ignored
                    };
                    self.conclude(&delivery, done).await;
                }
                Command::RemoveJob { .. } | Command::RemoveImage { .. } => {
                    self.start_removal(delivery).await;
                }
            },
        }
    }

    /// Reports the outcome of a command to the queue.
    async fn conclude(&self, delivery: &Delivery, done: Done) {
        let outcome = match done {
            Done::Handled | Done::Ignored => {
                if let Err(error) = delivery.acknowledge().await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a command was not acknowledged and may come again"
                    );
                }
                if done == Done::Handled {
                    "handled"
                } else {
                    "ignored"
                }
            }
            Done::Busy => {
                let _comes_again = delivery.later(LATER).await;
                "retried"
            }
            Done::Failed(reason) if delivery.deliveries >= self.context.config.deliveries => {
                let tried = delivery.deliveries;
                let reason = format!("given out {tried} times, the last time: {reason}");
                self.bury(delivery.letter(), &reason).await;
                return;
            }
            Done::Failed(_) => {
                let _comes_again = delivery.later(pause_after(delivery.deliveries)).await;
                "retried"
            }
        };
        count(outcome);
    }

    /// Stores a message that can't be parsed or executed in the database and in the stream of dead letters, and removes
    /// it from the queue. If either can't accept the message, it stays in the queue and comes again.
    async fn bury(&self, letter: &Letter, reason: &str) {
        let subject = &letter.subject;
        tracing::warn!(subject, reason, "a message goes to the dead letters");
        let kept = self
            .context
            .store
            .bury_message(subject, &letter.payload, &letter.headers, reason)
            .await;
        if let Err(error) = kept {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a dead letter can't be kept now and comes again"
            );
            return;
        }
        if let Err(error) = letter.bury(reason).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a dead letter stays in the queue and comes again"
            );
        }
        count("dead");
    }

    async fn start_run(&self, job_id: &JobId, run: Run, headers: &TraceHeaders) -> Done {
        let since = Instant::now();
        let context = &self.context;
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Done::Busy;
        };
        let lease = match context
            .store
            .claim_run(job_id, &context.worker, context.config.lease_ttl())
            .await
        {
            Ok(Claim::Granted(lease)) => lease,
            Ok(Claim::Held | Claim::NotWanted) => return Done::Ignored,
            Err(error) => {
                tracing::warn!(%job_id, %run, error = &error as &dyn std::error::Error, "a job can't be claimed now");
                return Done::Failed(error.to_string());
            }
        };
        telemetry::counter(Metric::LeasesClaimed, &[]).increment(1);
        let held = self.leases.keep(job_id, lease.epoch, since);
        let span = tracing::info_span!("run", %job_id, run = %lease.run, epoch = %lease.epoch);
        telemetry::trace_context::extract(&span, headers);
        let driving =
            run::drive(Arc::clone(context), lease, held, headers.clone()).instrument(span);
        self.task("run", Policy::restart().finishes(), async move {
            driving.await;
            drop(slot);
        });
        Done::Handled
    }

    /// Removes the job or image that the command names, in a task. Meanwhile the task reports to the queue that the
    /// command is still in progress.
    async fn start_removal(self: &Arc<Self>, delivery: Delivery) {
        let Ok(place) = Arc::clone(&self.removals).try_acquire_owned() else {
            self.conclude(&delivery, Done::Busy).await;
            return;
        };
        let puller = Arc::clone(self);
        // A removal that a drain cuts off is not acknowledged, and comes again.
        self.task("removal", Policy::restart(), async move {
            let still_working = async {
                loop {
                    tokio::time::sleep(Delivery::PATIENCE / 3).await;
                    let _comes_again = delivery.still_working().await;
                }
            };
            let removal = tokio::select! {
                removal = puller.remove(&delivery.command) => removal,
                () = still_working => unreachable!("it is said for ever"),
            };
            puller.conclude(&delivery, removal.into()).await;
            drop(place);
        });
    }

    async fn remove(&self, command: &Command) -> Removal {
        match command {
            Command::RemoveJob { job_id } => {
                let keep =
                    |lease: &Lease, since| self.leases.keep(&lease.job_id, lease.epoch, since);
                removal::remove_job(&self.context, job_id, keep).await
            }
            Command::RemoveImage { image_id } => {
                removal::remove_image(&self.context, image_id).await
            }
            Command::StartRun { .. } | Command::StopRun { .. } => Removal::Done,
        }
    }

    /// Starts a task that runs once. A panic loses one run or removal, not the worker: the lease expires, or the
    /// command comes again.
    fn task(
        &self,
        name: &'static str,
        policy: Policy,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut work = Some(work);
        self.tasks.start(name, policy, move || {
            let work = work.take();
            async move {
                if let Some(work) = work {
                    work.await;
                }
                Ok::<(), std::convert::Infallible>(())
            }
        });
    }
}

fn count(outcome: &'static str) {
    let labels = [("stream", bus::COMMANDS), ("outcome", outcome)];
    telemetry::counter(Metric::Messages, &labels).increment(1);
}

/// Returns the pause before a failed command is redelivered, by the number of its deliveries.
fn pause_after(deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries.saturating_sub(1).clamp(0, 10)).unwrap_or(0);
    (LATER * 2_u32.pow(doublings)).min(LONGEST_LATER)
}

impl From<Removal> for Done {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Done => Self::Handled,
            Removal::Busy => Self::Busy,
            Removal::Failed(reason) => Self::Failed(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_again_and_again_waits_longer_each_time() {
        let pauses: Vec<u64> = [1, 2, 3, 7, 20, i64::MAX]
            .map(|deliveries| pause_after(deliveries).as_secs())
            .to_vec();
        assert_eq!(pauses, [5, 10, 20, 300, 300, 300]);
    }
}
