//! `/healthz`, `/readyz` and `/metrics` of a process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::{BindError, Shutdown, TaskFailure, TaskGroup, bind};

/// Longest wait for the listener's end. The listener has nothing to finish.
const END: Duration = Duration::from_secs(1);

/// Conditions, by name, that must hold before a process takes work. Clones share the conditions, so that several roles
/// in one process can report at one address. In that case a condition is named after its role (`worker.postgres`).
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<String, Arc<AtomicBool>>>>,
    warnings: Arc<Mutex<BTreeSet<String>>>,
}

/// One named condition; see [`Readiness::condition`].
#[derive(Debug, Clone)]
pub struct Condition {
    holds: Arc<AtomicBool>,
}

impl Readiness {
    /// Creates a readiness without conditions, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet, or finds the one of that name.
    pub fn condition(&self, name: impl Into<String>) -> Condition {
        let holds = Arc::clone(self.lock().entry(name.into()).or_default());
        Condition { holds }
    }

    /// Returns the names of the conditions that do not hold.
    pub fn missing(&self) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|(_, holds)| !holds.load(Ordering::Acquire))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Adds a sentence to `/readyz` that a person should read. It does not change the readiness.
    pub fn warn(&self, sentence: impl Into<String>) {
        self.lock_warnings().insert(sentence.into());
    }

    /// Returns the sentences that [`Self::warn`] was given.
    pub fn warnings(&self) -> Vec<String> {
        self.lock_warnings().iter().cloned().collect()
    }

    fn lock_warnings(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // The set is whole after any panic: it is never changed in steps.
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<AtomicBool>>> {
        // The map is whole after any panic: it is never changed in steps.
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// Records if the condition holds now.
    pub fn set(&self, holds: bool) {
        self.holds.store(holds, Ordering::Release);
    }
}

/// Serves the three paths at `address`, if one is given, until `role` has ended, so that a drain can be watched.
///
/// # Errors
/// Those of `role`; the address can't be bound, or its listener failed.
pub async fn shown<T, E>(
    address: Option<SocketAddr>,
    readiness: Readiness,
    shutdown: &Shutdown,
    role: impl Future<Output = Result<T, E>>,
) -> Result<T, E>
where
    E: From<BindError> + From<TaskFailure>,
{
    let listener = match address {
        Some(address) => Some(bind(address, "--health").await?),
        None => None,
    };
    shown_at(listener, readiness, shutdown, role).await
}

/// Like [`shown`], for a listener that is bound already.
///
/// # Errors
/// Those of `role`; the listener failed.
pub async fn shown_at<T, E>(
    listener: Option<TcpListener>,
    readiness: Readiness,
    shutdown: &Shutdown,
    role: impl Future<Output = Result<T, E>>,
) -> Result<T, E>
where
    E: From<TaskFailure>,
{
    let showing = TaskGroup::new(shutdown.child());
    if let Some(listener) = listener {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "health and metrics are shown");
        }
        let served = serve(listener, readiness, showing.shutdown().clone());
        showing.start_once("health", served);
    }
    let ended = role.await;
    showing.shutdown().exit();
    showing.join(END).await?;
    ended
}

/// Serves the three paths on `listener` until an exit is asked for. A draining process still shows its health and
/// metrics, and is not ready.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    shutdown: Shutdown,
) -> io::Result<()> {
    let router = router(readiness, shutdown.clone());
    tokio::select! {
        served = axum::serve(listener, router) => served,
        () = shutdown.exiting() => Ok(()),
    }
}

/// Returns the three paths, for a listener that serves more than these.
pub fn router(readiness: Readiness, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state((readiness, shutdown))
}

async fn ready(State((readiness, shutdown)): State<(Readiness, Shutdown)>) -> Response {
    let mut missing = readiness.missing();
    if shutdown.is_draining() {
        missing.push("draining".to_owned());
    }
    if missing.is_empty() {
        format!("{}ready\n", warnings(&readiness)).into_response()
    } else {
        let text = format!(
            "{}not ready: {}\n",
            warnings(&readiness),
            missing.join(", ")
        );
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

fn warnings(readiness: &Readiness) -> String {
    let warnings = readiness.warnings();
    warnings
        .iter()
        .map(|sentence| format!("warning: {sentence}\n"))
        .collect()
}

async fn metrics() -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, telemetry::render()).into_response()
}
