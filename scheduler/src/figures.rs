//! Figures: counts from the database, for the dashboard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::job::State;
use store::StoreError;
use store::job_counts::Figures;
use telemetry::Metric;

use crate::Error;
use crate::role::Scheduler;

/// Half of Prometheus' usual interval.
const INTERVAL: Duration = Duration::from_secs(7);

pub(crate) async fn run(scheduler: Arc<Scheduler>) -> Result<(), Error> {
    loop {
        match scheduler.store.figures().await {
            Ok(figures) => show(&figures),
            Err(error) => complain(&error),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn complain(error: &StoreError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the figures can't be read"
    );
}

fn show(figures: &Figures) {
    let mut absent: BTreeSet<&str> = State::ALL.into_iter().map(State::as_str).collect();
    for (state, count) in &figures.jobs {
        absent.remove(state.as_str());
        telemetry::gauge(Metric::Jobs, &[("state", state)]).set(*count as f64);
    }
    for state in absent {
        telemetry::gauge(Metric::Jobs, &[("state", state)]).set(0.0);
    }
    for (state, (count, oldest_secs)) in [
        ("waiting_for_slot", figures.waiting_for_slot),
        ("waiting_for_worker", figures.waiting_for_worker),
    ] {
        telemetry::gauge(Metric::QueueJobs, &[("state", state)]).set(count as f64);
        telemetry::gauge(Metric::QueueOldestSeconds, &[("state", state)]).set(oldest_secs);
    }
    telemetry::gauge(Metric::QueueJobs, &[("state", "leased")]).set(figures.leased as f64);
    telemetry::gauge(Metric::OutboxRows, &[]).set(figures.outbox.0 as f64);
    telemetry::gauge(Metric::OutboxAgeSeconds, &[]).set(figures.outbox.1);
    telemetry::gauge(Metric::Agents, &[("state", "online")]).set(figures.agents.0 as f64);
    telemetry::gauge(Metric::Agents, &[("state", "offline")]).set(figures.agents.1 as f64);
}
