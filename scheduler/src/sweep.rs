//! The sweep: removes leases that ran out, and returns their runs to the queue.

use std::sync::Arc;
use std::time::Duration;

use telemetry::Metric;

use crate::Error;
use crate::role::{Scheduler, count_transition};

pub(crate) async fn run(scheduler: Arc<Scheduler>) -> Result<(), Error> {
    loop {
        while let Some(swept) = scheduler.store.sweep_lease().await? {
            telemetry::counter(Metric::LeasesSwept, &[]).increment(1);
            tracing::warn!(job_id = %swept.job_id, "a lease has run out");
            if let Some(transitioned) = &swept.transitioned {
                count_transition(transitioned, "lease_lost");
            }
        }
        tokio::time::sleep(Duration::from_secs(scheduler.config.sweep_secs)).await;
    }
}
