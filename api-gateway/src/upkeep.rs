//! Small recurring work of a gateway: checks of Postgres, removal of rows that are no longer needed, and the audit of
//! throttled calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use service::{Dependency, Shutdown, show_connections};
use store::{Store, StoreError};
use tokio::time::{MissedTickBehavior, interval};

use crate::authentication::NONCE_KEPT_FOR;
use crate::gateway::Gateway;
use crate::tls::Certificate;

/// Interval of the removal of rows that are no longer needed.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Interval at which throttled calls are written to the audit.
const AUDIT_THROTTLED_EVERY: Duration = Duration::from_secs(60);

/// Time for which an expired temporary key is kept, so that its holder gets the error that it expired.
const EXPIRED_KEYS_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval at which the file of the API's certificate is checked.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// Sets readiness by the state of Postgres.
pub async fn watch_postgres(gateway: Arc<Gateway>, postgres: Dependency) -> Result<(), Infallible> {
    let store = &gateway.store;
    let never = postgres.watch(|| async {
        let connections = store.connections();
        show_connections(connections.used, connections.idle);
        store.takes_writes().await.is_ok()
    });
    match never.await {}
}

/// Removes nonces, client tokens and temporary keys whose time is over, and sources whose last job is gone. It also
/// removes rows of the audit that are older than `audit_days`. Any number of gateways may do so at once.
pub async fn forget(store: Store, audit_days: i32) -> Result<(), StoreError> {
    let mut ticks = ticks(FORGET_EVERY);
    loop {
        ticks.tick().await;
        let nonce_hours = store.keep_nonces(NONCE_KEPT_FOR).await?;
        // Repeats until nothing is due: calls may add more in a minute than one batch holds.
        while store.forget_client_tokens().await? > 0 {}
        let sources = store.remove_deleted_sources().await?;
        let keys = store.forget_temporary_keys(EXPIRED_KEYS_KEPT_FOR).await?;
        while store.forget_audit(audit_days).await? > 0 {}
        tracing::debug!(
            nonce_hours,
            sources,
            keys,
            "rows removed that are no longer needed"
        );
    }
}

/// Writes throttled calls to the audit each minute, until the gateway drains.
pub async fn audit_throttled(gateway: Arc<Gateway>, shutdown: Shutdown) -> Result<(), StoreError> {
    let mut ticks = ticks(AUDIT_THROTTLED_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => gateway.throttled.write(&gateway.store).await?,
            () = shutdown.draining() => return Ok(()),
        }
    }
}

/// Serves a renewed certificate soon after it is written.
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
