//! Waking tasks: Postgres says when there is something to do, a timer says it when Postgres' word was lost.

use std::sync::Arc;
use std::time::Duration;

use store::Store;
use tokio::sync::Notify;

use crate::Error;

/// Wakes one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wake(Arc<Notify>);

impl Wake {
    /// Ends when somebody says that there is something to do, after `longest` at the latest.
    pub(crate) async fn wait(&self, longest: Duration) {
        let _late = tokio::time::timeout(longest, self.0.notified()).await;
    }

    /// There is something to do.
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

/// Listens to Postgres, and wakes. A lost connection is made again; what was said meanwhile is found by the tasks' own looks.
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
            // The connection was made again: anything may have been missed.
            _ => {
                wakes.relay.now();
                wakes.admission.now();
                wakes.timers.now();
            }
        }
    }
}
