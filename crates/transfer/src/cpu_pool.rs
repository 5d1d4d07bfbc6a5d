//! Threads for work that blocks: reading, hashing, packing, writing, syncing.
//!
//! Between its awaits such work holds its thread, so it gets one of its own. In virtual time (`simulation`, in tests)
//! there is only one thread, and what blocks takes no time on it: it runs there, after a pause drawn from the seed, as
//! a thread may be late.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::TransferError;

/// Starts work that blocks between its awaits. It goes on when the handle is dropped. It must not wait for time: its
/// thread has no timer to turn.
pub(crate) fn start<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(test)]
    if let Some(pause) = crate::simulation::pause() {
        return tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            work.await
        });
    }
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work))
}

/// Runs work that blocks from its beginning to its end. It goes on when this is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    ended(start(async { work() }).await)
}

/// Returns the processor time of this process, all threads together.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process takes no negative time")
}

/// Returns the outcome of a task: one that panicked is an error like others.
pub(crate) fn ended<T>(
    outcome: Result<Result<T, TransferError>, tokio::task::JoinError>,
) -> Result<T, TransferError> {
    outcome.unwrap_or_else(|died| Err(TransferError::Protocol(format!("a task died: {died}"))))
}
