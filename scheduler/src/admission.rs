//! Admission: rounds in which each tenant gets at most one slot, until nobody gets one.

use std::sync::Arc;

use telemetry::Metric;

use crate::Error;
use crate::role::Scheduler;
use crate::wake::Wake;

pub(crate) async fn run(scheduler: Arc<Scheduler>, wake: Wake) -> Result<(), Error> {
    loop {
        let admitted = scheduler
            .store
            .admit_round(scheduler.config.admission_window)
            .await?;
        telemetry::counter(Metric::JobsAdmitted, &[]).increment(admitted.len() as u64);
        for job in &admitted {
            tracing::info!(job_id = %job.job_id, run = %job.run, "a job has a slot");
        }
        if admitted.is_empty() {
            wake.wait(scheduler.config.poll()).await;
        }
    }
}
