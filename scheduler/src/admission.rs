//! Admission: rounds in which the tenants that hold the fewest slots get one each, until no tenant gets one. Then a run
//! of the tenant that holds the most may be asked to release its place.

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
            let asked = scheduler
                .store
                .ask_for_place(scheduler.config.place())
                .await?;
            if let Some(job_id) = asked {
                tracing::info!(%job_id, "a run is asked to give its place to another account");
            }
            wake.wait(scheduler.config.poll()).await;
        }
    }
}
