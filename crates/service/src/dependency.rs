//! External services that a process needs. Every role shows them in its readiness and its metrics in the same way.

use std::convert::Infallible;
use std::time::Duration;

use telemetry::Metric;

use crate::Readiness;
use crate::health::Condition;

/// Pause between two probes, and the longest time that one probe may take.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Postgres or NATS, as one role sees it.
#[derive(Debug, Clone)]
pub struct Dependency {
    name: &'static str,
    condition: Condition,
}

impl Dependency {
    /// Creates the dependency of a role. `readiness` names it `<role>.<name>` while it is unavailable.
    pub fn new(readiness: &Readiness, role: &str, name: &'static str) -> Self {
        Self {
            name,
            condition: readiness.condition(format!("{role}.{name}")),
        }
    }

    /// Probes the dependency again and again. A probe without an answer in time counts as unavailable.
    pub async fn watch<L>(self, mut look: impl FnMut() -> L) -> Infallible
    where
        L: Future<Output = bool>,
    {
        let mut was_up = None;
        loop {
            let is_up = tokio::time::timeout(LOOK_EVERY, look())
                .await
                .unwrap_or(false);
            self.condition.set(is_up);
            telemetry::gauge(Metric::DependencyUp, &[("dependency", self.name)])
                .set(f64::from(u8::from(is_up)));
            let name = self.name;
            match (was_up, is_up) {
                (Some(true), false) => tracing::warn!(
                    name,
                    "a dependency does not answer: this process is not ready until it does"
                ),
                (Some(false), true) => tracing::warn!(name, "a dependency answers again"),
                _ => {}
            }
            was_up = Some(is_up);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Shows how many connections of a pool are in use and how many are free.
pub fn show_connections(used: u32, idle: u32) {
    for (state, count) in [("used", used), ("idle", idle)] {
        telemetry::gauge(Metric::PostgresConnections, &[("state", state)]).set(f64::from(count));
    }
}
