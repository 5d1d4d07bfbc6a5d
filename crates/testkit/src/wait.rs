//! Waiting for a condition with a bound. Tests never sleep for a time and hope.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `condition` holds.
///
/// # Errors
/// After `timeout`, with `what` was waited for; or what `condition` fails with.
pub async fn until(
    timeout: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    some(timeout, what, async || Ok(condition().await?.then_some(()))).await
}

/// Waits until `look` finds something, and answers with it.
///
/// # Errors
/// After `timeout`, with `what` was waited for; or what `look` fails with.
pub async fn some<T>(
    timeout: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if start.elapsed() > timeout {
            bail!("waited {timeout:?} in vain: {what}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
