//! Small recurring work of a gateway: is Postgres there, and which rows are no longer needed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use service::health::Condition;
use store::{Store, StoreError};
use telemetry::Metric;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::authentication::NONCE_KEPT_FOR;
use crate::gateway::Gateway;
use crate::tls::Certificate;

/// How often Postgres is asked for a sign of life, and how long it may take to give one.
const PING_EVERY: Duration = Duration::from_secs(2);

/// How often rows that are no longer needed are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How long a temporary key that expired is kept, so that its holder reads that it did.
const EXPIRED_KEYS_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the file of the API's certificate is looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// Keeps readiness as Postgres is.
pub async fn watch_postgres(gateway: Arc<Gateway>, condition: Condition) -> Result<(), Infallible> {
    let gauge = telemetry::gauge(Metric::DependencyUp, &[("dependency", "postgres")]);
    let [used, idle] = ["used", "idle"]
        .map(|state| telemetry::gauge(Metric::PostgresConnections, &[("state", state)]));
    let mut was_up = None;
    let mut ticks = ticks(PING_EVERY);
    loop {
        ticks.tick().await;
        let is_up = matches!(timeout(PING_EVERY, gateway.store.ping()).await, Ok(Ok(())));
        condition.set(is_up);
        gauge.set(if is_up { 1.0 } else { 0.0 });
        let connections = gateway.store.connections();
        used.set(f64::from(connections.used));
        idle.set(f64::from(connections.idle));
        if was_up == Some(true) && !is_up {
            tracing::warn!("Postgres does not answer: calls are refused until it does");
        }
        was_up = Some(is_up);
    }
}

/// Removes nonces, client tokens and temporary keys whose time is over, sources whose last job is gone, and rows of the audit that are older
/// than `audit_days`. Any number of gateways may do so at once.
pub async fn forget(store: Store, audit_days: i32) -> Result<(), StoreError> {
    let mut ticks = ticks(FORGET_EVERY);
    loop {
        ticks.tick().await;
        let nonces = store.forget_nonces(NONCE_KEPT_FOR).await?;
        let tokens = store.forget_client_tokens().await?;
        let sources = store.remove_deleted_sources().await?;
        let audited = store.forget_audit(audit_days).await?;
        let keys = store.forget_temporary_keys(EXPIRED_KEYS_KEPT_FOR).await?;
        tracing::debug!(
            nonces,
            tokens,
            sources,
            audited,
            keys,
            "rows removed that are no longer needed"
        );
    }
}

/// Serves a renewed certificate soon after it lies there.
pub async fn refresh(certificate: Arc<Certificate>) -> Result<(), Infallible> {
    let mut ticks = ticks(REFRESH_EVERY);
    loop {
        ticks.tick().await;
        certificate.refresh();
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
