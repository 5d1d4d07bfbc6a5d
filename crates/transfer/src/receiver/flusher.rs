//! The flusher: makes what was written durable, each window of bytes or time.

use std::sync::Arc;

use super::Shared;
use super::disks::Disks;
use crate::cpu_pool::blocking;

/// Starts the flusher of an admission; it ends with it.
pub(super) fn start(shared: Arc<Shared>, disks: Arc<Disks>) {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = disks.cancel.cancelled() => return,
                () = disks.wants_flush.notified() => {}
                () = tokio::time::sleep(shared.config.flush_interval) => {}
            }
            let (flushing, flushed) = (Arc::clone(&shared), Arc::clone(&disks));
            if let Err(error) = blocking(move || flushing.flush(&flushed)).await {
                shared.fail(&error);
                disks.cancel.cancel();
                return;
            }
        }
    });
}
