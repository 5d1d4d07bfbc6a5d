//! The sources that are connected here, and their wake-ups.
//!
//! A source has one watch at a gateway. A second one replaces and ends the first: after a reconnect the first belongs
//! to a dead connection that has not been noticed yet. If two agents were started with one key, each learns it when its
//! watch ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::SourceId;
use telemetry::Metric;
use tokio::sync::watch;

/// The watches of this gateway. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches {
    open: Arc<Mutex<HashMap<SourceId, watch::Sender<()>>>>,
}

/// One open watch; dropping it closes it.
#[derive(Debug)]
pub(super) struct Watch {
    watches: Watches,
    source_id: SourceId,
    woken: watch::Receiver<()>,
}

/// Another watch of the same source has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replaced;

impl Watches {
    /// Opens the source's watch, in place of the one that it may have.
    pub fn open(&self, source_id: SourceId) -> Watch {
        let (sender, woken) = watch::channel(());
        let mut open = self.lock();
        open.insert(source_id.clone(), sender);
        show(&open);
        drop(open);
        Watch {
            watches: self.clone(),
            source_id,
            woken,
        }
    }

    /// Wakes the source's watch, if it is here.
    pub fn wake(&self, source_id: &SourceId) {
        if let Some(sender) = self.lock().get(source_id) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SourceId, watch::Sender<()>>> {
        // The map is consistent after any panic: every change of it is a single step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    pub fn source_id(&self) -> &SourceId {
        &self.source_id
    }

    /// Waits until the watch is woken. Wakes that arrive between two waits count as one.
    pub async fn woken(&mut self) -> Result<(), Replaced> {
        self.woken.changed().await.map_err(|_| Replaced)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut open = self.watches.lock();
        // A replaced watch has a closed channel, and the map's entry is its successor's.
        if self.woken.has_changed().is_ok() {
            open.remove(&self.source_id);
            show(&open);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gateway has far fewer than 2^52 agents"
)]
fn show(open: &HashMap<SourceId, watch::Sender<()>>) {
    telemetry::gauge(Metric::AgentsConnected, &[]).set(open.len() as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_reaches_its_source_only_and_is_kept_until_it_is_taken() {
        let watches = Watches::default();
        let (first, second) = (SourceId::generate(), SourceId::generate());
        let mut watch = watches.open(first.clone());
        watches.wake(&second);
        watches.wake(&first);
        watches.wake(&first);
        assert_eq!(watch.woken().await, Ok(()));
        assert!(!watch.woken.has_changed().unwrap(), "two wakes are one");
    }

    #[tokio::test]
    async fn a_new_watch_takes_the_place_of_the_old_one() {
        let watches = Watches::default();
        let source = SourceId::generate();
        let mut old = watches.open(source.clone());
        let mut new = watches.open(source.clone());
        assert_eq!(old.woken().await, Err(Replaced));
        drop(old);
        watches.wake(&source);
        assert_eq!(new.woken().await, Ok(()));
    }

    #[tokio::test]
    async fn a_closed_watch_is_forgotten() {
        let watches = Watches::default();
        let watch = watches.open(SourceId::generate());
        assert_eq!(watches.lock().len(), 1);
        drop(watch);
        assert!(watches.lock().is_empty());
    }
}
