//! The reconciler: repeats requests that have had no effect, and deletes rows that are too old to matter.

use std::sync::Arc;
use std::time::Duration;

use telemetry::Metric;

use crate::Error;
use crate::role::Scheduler;

pub(crate) async fn run(scheduler: Arc<Scheduler>) -> Result<(), Error> {
    let age = Duration::from_secs(scheduler.config.reconcile_secs);
    loop {
        let reconciled = scheduler.store.reconcile(age).await?;
        for (kind, count) in [
            ("start", reconciled.starts),
            ("removal", reconciled.removals),
            ("image_removal", reconciled.images),
        ] {
            if count > 0 {
                tracing::info!(kind, count, "asked again for what nobody did");
                telemetry::counter(Metric::ReconcilerRepairs, &[("kind", kind)]).increment(count);
            }
        }
        tokio::time::sleep(age).await;
    }
}
