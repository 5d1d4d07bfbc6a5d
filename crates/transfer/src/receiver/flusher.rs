//! The flusher: makes what was written durable, each window of bytes or time.

use std::sync::Arc;

use super::Shared;
use super::disks::Disks;

/// Starts the flusher of an admission; it ends with it.
pub(super) fn start(shared: Arc<Shared>, disks: Arc<Disks>) {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = disks.cancel.cancelled() => return,
                () = disks.wants_flush.notified() => {}
                () = tokio::time::sleep(shared.config.flush_interval) => {}
            }
            let (flushing, status) = (Arc::clone(&disks), shared.status.clone());
            let flushed = tokio::task::spawn_blocking(move || flushing.flush(&status)).await;
            if let Ok(Err(error)) = flushed {
                shared.fail(&error);
                disks.cancel.cancel();
                return;
            }
        }
    });
}
