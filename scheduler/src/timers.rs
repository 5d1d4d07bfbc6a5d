//! Timers: processes due timers, and sleeps until the next.

use std::sync::Arc;

use telemetry::Metric;

use crate::Error;
use crate::role::{Scheduler, count_transition};
use crate::wake::Wake;

pub(crate) async fn run(scheduler: Arc<Scheduler>, wake: Wake) -> Result<(), Error> {
    loop {
        let Some(fired) = scheduler.store.fire_next_timer().await? else {
            // Postgres computes the wait, because only its clock compares due times.
            let next = scheduler.store.until_next_timer().await?;
            let longest = scheduler.config.poll();
            wake.wait(next.map_or(longest, |next| next.min(longest)))
                .await;
            continue;
        };
        let kind = fired.kind.as_str();
        telemetry::histogram(Metric::TimerLatenessSeconds, &[("kind", kind)])
            .record(fired.lateness.as_secs_f64());
        match &fired.transitioned {
            Some(transitioned) => {
                tracing::info!(job_id = %fired.job_id, kind, lateness = ?fired.lateness, "a timer has fired");
                count_transition(transitioned, kind);
            }
            None => tracing::debug!(job_id = %fired.job_id, kind, "a timer waits"),
        }
    }
}
