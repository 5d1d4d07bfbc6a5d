//! A group of named tasks that start together and are awaited together.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use telemetry::Metric;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::policy::{Backoff, OnCancel, OnError, Policy};
use crate::Shutdown;

type Cause = Box<dyn Error + Send + Sync>;

/// Reasons for which a group failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure {
    /// A task whose policy is not a restart failed.
    #[error("task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// The task's error.
        source: Cause,
    },
    /// These tasks were still running at the deadline of the drain, and were dropped.
    #[error("still running after {deadline:?} of draining: {}", tasks.join(", "))]
    Deadline {
        /// Their names.
        tasks: Vec<&'static str>,
        /// The deadline.
        deadline: Duration,
    },
}

/// Starts tasks and waits for them. Clones are the same group, so that a task can start others.
#[derive(Debug, Clone)]
pub struct TaskGroup {
    group: Arc<Group>,
}

#[derive(Debug)]
struct Group {
    shutdown: Shutdown,
    /// Cancelled when the deadline has passed.
    cut: CancellationToken,
    tracker: TaskTracker,
    /// Number of running tasks of each name.
    running: Mutex<BTreeMap<&'static str, usize>>,
    /// The first failure that was not answered with a restart.
    failure: Mutex<Option<TaskFailure>>,
}

impl TaskGroup {
    /// Creates an empty group that ends with `shutdown`, and drains it if a task's policy requires that.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            group: Arc::new(Group {
                shutdown,
                cut: CancellationToken::new(),
                tracker: TaskTracker::new(),
                running: Mutex::default(),
                failure: Mutex::default(),
            }),
        }
    }

    /// Starts a task. `make` makes its future, once for each start that the policy asks for.
    ///
    /// `name` is a label of a metric: a word from the code, never an id.
    pub fn start<M, F, E>(&self, name: &'static str, policy: Policy, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let group = Arc::clone(&self.group);
        let running = Running::enter(&self.group, name);
        self.group.tracker.spawn(async move {
            let _running = running;
            let mut pause = None;
            let rounds = async {
                loop {
                    let started = Instant::now();
                    let Err(cause) = attempt(&mut make).await else {
                        return;
                    };
                    let Some(backoff) = group.failed(name, policy.on_error, cause) else {
                        return;
                    };
                    let next = backoff.next(pause, started.elapsed());
                    pause = Some(next);
                    // A failed task is not started again while the process drains, so there is nothing left to finish.
                    tokio::select! {
                        () = tokio::time::sleep(next) => (),
                        () = group.shutdown.draining() => return,
                    }
                }
            };
            tokio::select! {
                biased;
                () = group.cut.cancelled() => (),
                () = group.shutdown.exiting() => (),
                () = group.shutdown.draining(), if policy.on_cancel == OnCancel::Abort => (),
                () = rounds => (),
            }
        });
    }

    /// Starts a task that exists once and cannot be restarted. A failure drains the process, and draining lets the task
    /// finish.
    pub fn start_once<F, E>(&self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + Send + 'static,
    {
        let mut future = Some(future);
        self.start(name, Policy::essential(), move || {
            let future = future.take();
            async move {
                match future {
                    Some(future) => future.await,
                    // The policy has no restart, so the future is never asked for twice.
                    None => Ok(()),
                }
            }
        });
    }

    /// Returns the shutdown that the group ends with.
    pub fn shutdown(&self) -> &Shutdown {
        &self.group.shutdown
    }

    /// Waits until draining begins or all tasks are done. Then gives the running tasks `deadline` to end, and drops the
    /// rest.
    ///
    /// # Errors
    /// The first failure that made the process drain or exit, otherwise the tasks that missed the deadline. An exit is
    /// no error.
    pub async fn join(self, deadline: Duration) -> Result<(), TaskFailure> {
        let group = &self.group;
        group.tracker.close();
        tokio::select! {
            () = group.tracker.wait() => (),
            () = group.shutdown.draining() => (),
        }
        let late = tokio::time::timeout(deadline, group.tracker.wait())
            .await
            .is_err();
        let tasks = group.names_running();
        group.cut.cancel();
        if late {
            tracing::warn!(
                ?tasks,
                ?deadline,
                "draining took too long: tasks are cut off"
            );
            group.tracker.wait().await;
        }
        match group.lock_failure().take() {
            Some(failure) => Err(failure),
            None if late => Err(TaskFailure::Deadline { tasks, deadline }),
            None => Ok(()),
        }
    }
}

/// Runs the task once; a panic is a failure like any other.
async fn attempt<F, E>(make: &mut (impl FnMut() -> F + Send)) -> Result<(), Cause>
where
    F: Future<Output = Result<(), E>>,
    E: Into<Cause>,
{
    match AssertUnwindSafe(async { make().await.map_err(Into::into) })
        .catch_unwind()
        .await
    {
        Ok(outcome) => outcome,
        Err(panic) => Err(format!("panicked: {}", panic_text(&*panic)).into()),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}

impl Group {
    /// Decides about a dead task, as the only place that does: logs it with all its causes, counts it, and acts.
    /// Returns the pauses if the task is to be started again.
    fn failed(&self, task: &'static str, on_error: OnError, cause: Cause) -> Option<Backoff> {
        let action = match on_error {
            OnError::Restart(_) => "restart",
            OnError::Drain => "drain",
            OnError::Exit => "exit",
        };
        telemetry::counter(Metric::TaskFailures, &[("task", task), ("action", action)])
            .increment(1);
        let error = chain(&*cause);
        match on_error {
            OnError::Restart(backoff) => {
                tracing::warn!(task, error, "task failed: it is started again");
                return Some(backoff);
            }
            OnError::Drain => tracing::error!(task, error, "task failed: the process drains"),
            OnError::Exit => tracing::error!(task, error, "task failed: the process ends"),
        }
        self.lock_failure().get_or_insert(TaskFailure::Failed {
            task,
            source: cause,
        });
        if on_error == OnError::Exit {
            self.shutdown.exit();
        } else {
            self.shutdown.drain();
        }
        None
    }

    fn names_running(&self) -> Vec<&'static str> {
        self.lock_running().keys().copied().collect()
    }

    // Both are whole after any panic: they are never changed in steps.
    fn lock_running(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_failure(&self) -> MutexGuard<'_, Option<TaskFailure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an error and all its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Counts a task as running for as long as it lives.
struct Running {
    group: Arc<Group>,
    name: &'static str,
}

impl Running {
    fn enter(group: &Arc<Group>, name: &'static str) -> Self {
        *group.lock_running().entry(name).or_default() += 1;
        Self {
            group: Arc::clone(group),
            name,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.group.lock_running();
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}
