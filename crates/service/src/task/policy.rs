//! Policies for a task that fails, and for one that runs when the process drains.

use std::time::Duration;

/// Both halves of a task's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Effect of a failure or a panic.
    pub on_error: OnError,
    /// Effect of draining on the task.
    pub on_cancel: OnCancel,
}

/// Effects of a task's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The task is started again after a pause.
    Restart(Backoff),
    /// The process drains and ends with an error.
    Drain,
    /// The process ends at once with an error.
    Exit,
}

/// Effects of draining on a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// The task watches [`crate::Shutdown`] and ends by itself; it has until the group's deadline.
    Finish,
    /// The task is dropped at its next await.
    Abort,
}

/// Pauses between starts of a task that keeps failing: `first`, then twice as long each time, up to `most`. A task that
/// ran for longer than `most` begins again with `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
}

impl Default for Backoff {
    /// 200 ms up to 10 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// Returns the pause after `previous`, or the first one if the task ran for `ran` long enough.
    pub(super) fn next(self, previous: Option<Duration>, ran: Duration) -> Duration {
        match previous {
            Some(previous) if ran <= self.most => (previous * 2).min(self.most),
            Some(_) | None => self.first,
        }
    }
}

impl Policy {
    /// Returns the policy for loops in which every step may be cut off and repeated. The task is restarted with the
    /// default pauses, and dropped when draining.
    pub fn restart() -> Self {
        Self {
            on_error: OnError::Restart(Backoff::default()),
            on_cancel: OnCancel::Abort,
        }
    }

    /// Returns the policy for servers: the process drains when the task fails, and the task ends by itself when
    /// draining.
    pub fn essential() -> Self {
        Self {
            on_error: OnError::Drain,
            on_cancel: OnCancel::Finish,
        }
    }

    /// Returns the same policy, but the task is left to end by itself when draining.
    #[must_use]
    pub fn finishes(self) -> Self {
        Self {
            on_cancel: OnCancel::Finish,
            ..self
        }
    }

    /// Returns the same policy, but the task is dropped when draining.
    #[must_use]
    pub fn aborts(self) -> Self {
        Self {
            on_cancel: OnCancel::Abort,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_most_and_begin_anew_after_a_long_run() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            most: Duration::from_millis(350),
        };
        let short = Duration::from_millis(5);
        let first = backoff.next(None, short);
        let second = backoff.next(Some(first), short);
        let third = backoff.next(Some(second), short);
        assert_eq!(
            [first, second, third].map(|pause| pause.as_millis()),
            [100, 200, 350]
        );
        assert_eq!(
            backoff.next(Some(third), Duration::from_secs(1)),
            backoff.first
        );
    }
}
