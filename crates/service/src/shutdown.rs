//! The signal by which a process is asked to end.

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Asks every part of a process to end, in two steps. *Drain* means: take no new work, hand over or end the running
/// work. *Exit* means: drop everything now. Clones share one state. Each holder of a clone may ask for either step,
/// tests too.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    exit: CancellationToken,
}

impl Shutdown {
    /// Creates a shutdown for which neither step was requested.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a part of this shutdown: it drains and exits with its parent, and can also do so alone.
    pub fn child(&self) -> Self {
        Self {
            drain: self.drain.child_token(),
            exit: self.exit.child_token(),
        }
    }

    /// Asks to drain. Asking again changes nothing.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Asks to exit at once; this includes draining.
    pub fn exit(&self) {
        self.drain.cancel();
        self.exit.cancel();
    }

    /// Waits until draining has been asked for.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.drain.cancelled()
    }

    /// Waits until an exit has been asked for.
    pub fn exiting(&self) -> WaitForCancellationFuture<'_> {
        self.exit.cancelled()
    }

    /// Returns true if draining has been asked for.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Returns true if an exit has been asked for.
    pub fn is_exiting(&self) -> bool {
        self.exit.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exit_includes_drain_and_reaches_clones() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(!clone.is_draining());
        shutdown.exit();
        clone.draining().await;
        clone.exiting().await;
        assert!(clone.is_draining() && clone.is_exiting());
    }

    #[test]
    fn a_child_ends_alone_but_never_outlives_its_parent() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.drain();
        assert!(first.is_draining());
        assert!(!parent.is_draining() && !second.is_draining());
        parent.drain();
        assert!(second.is_draining() && !second.is_exiting());
    }
}
