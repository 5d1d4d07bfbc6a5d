//! Waking tasks: Postgres notifies when there is work, and a timer wakes the tasks when a notification was lost.

use std::sync::Arc;
use std::time::Duration;

use store::Store;
use tokio::sync::Notify;

use crate::Error;

/// Wakes one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wake(Arc<Notify>);

impl Wake {
    /// Waits for a notification of work, for `longest` at most.
    pub(crate) async fn wait(&self, longest: Duration) {
        let _late = tokio::time::timeout(longest, self.0.notified()).await;
    }

    /// Wakes the task.
    pub(crate) fn now(&self) {
        self.0.notify_one();
    }
}

/// The tasks that Postgres wakes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wakes {
    pub(crate) relay: Wake,
    pub(crate) admission: Wake,
    pub(crate) timers: Wake,
}

/// Listens to Postgres, and wakes the tasks. A lost connection is restored; the tasks' own checks find the
/// notifications missed meanwhile.
pub(crate) async fn listen(store: Store, wakes: Wakes) -> Result<(), Error> {
    let channels = [
        store::outbox::CHANNEL,
        store::job::QUEUE_CHANNEL,
        store::job::TIMER_CHANNEL,
    ];
    let mut listener = store.listen(&channels).await?;
    loop {
        let channel = listener.next_channel().await?;
        match channel.as_deref() {
            Some(store::outbox::CHANNEL) => wakes.relay.now(),
            Some(store::job::QUEUE_CHANNEL) => wakes.admission.now(),
            Some(store::job::TIMER_CHANNEL) => wakes.timers.now(),
            // The connection was restored: any notification may have been missed.
            _ => {
                wakes.relay.now();
                wakes.admission.now();
                wakes.timers.now();
            }
        }
    }
}
