//! The scheduler's process.

use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, BusConfig};
use secrecy::ExposeSecret as _;
use service::{Dependency, Policy, Shutdown, TaskGroup, health, show_connections};
use store::job::Transitioned;
use store::{ConnectConfig, Store};
use telemetry::Metric;

use crate::wake::{self, Wakes};
use crate::{Config, Error, admission, figures, reconcile, relay, sweep, timers};

/// State that all tasks share.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
}

/// Runs the scheduler until it is asked to end.
///
/// # Errors
/// Errors that a person must act on: see [`Error`]. A database or NATS that becomes unavailable later is no error; the
/// tasks try again.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let (address, readiness) = (config.health, config.readiness.clone());
    let scheduled = Box::pin(schedule(config, &shutdown));
    health::shown(address, readiness, &shutdown, scheduled).await
}

async fn schedule(config: Config, shutdown: &Shutdown) -> Result<(), Error> {
    let ready = config.readiness.condition("scheduler");
    let [postgres, nats] =
        ["postgres", "nats"].map(|name| Dependency::new(&config.readiness, "scheduler", name));
    let connect = ConnectConfig {
        statement_timeout: Duration::from_secs(config.statement_timeout_secs),
        ..ConnectConfig::new(config.database_url.expose_secret(), "wherry scheduler")
    };
    let store = Store::connect(&connect, config.seal_key.clone()).await?;
    let bus = Bus::connect(&BusConfig {
        timeout: Duration::from_secs(config.nats_timeout_secs),
        ..BusConfig::new(config.nats_url.expose_secret(), "wherry scheduler")
    })
    .await?;
    let drain = Duration::from_secs(config.drain_secs);
    let scheduler = Arc::new(Scheduler { config, store, bus });
    let wakes = Wakes::default();
    let tasks = TaskGroup::new(shutdown.clone());

    // Each round of a task is one transaction, so cutting a task off loses nothing.
    let (store, listening) = (scheduler.store.clone(), wakes.clone());
    tasks.start("listen", Policy::restart(), move || {
        wake::listen(store.clone(), listening.clone())
    });
    let (shared, woken) = (Arc::clone(&scheduler), wakes.relay.clone());
    tasks.start("relay", Policy::restart(), move || {
        relay::run(Arc::clone(&shared), woken.clone())
    });
    let (shared, woken) = (Arc::clone(&scheduler), wakes.admission.clone());
    tasks.start("admission", Policy::restart(), move || {
        admission::run(Arc::clone(&shared), woken.clone())
    });
    let (shared, woken) = (Arc::clone(&scheduler), wakes.timers.clone());
    tasks.start("timers", Policy::restart(), move || {
        timers::run(Arc::clone(&shared), woken.clone())
    });
    let shared = Arc::clone(&scheduler);
    tasks.start("sweep", Policy::restart(), move || {
        sweep::run(Arc::clone(&shared))
    });
    let shared = Arc::clone(&scheduler);
    tasks.start("reconcile", Policy::restart(), move || {
        reconcile::run(Arc::clone(&shared))
    });
    let shared = Arc::clone(&scheduler);
    tasks.start("figures", Policy::restart(), move || {
        figures::run(Arc::clone(&shared))
    });
    let shared = Arc::clone(&scheduler);
    tasks.start("watch_postgres", Policy::restart(), move || {
        watch_postgres(Arc::clone(&shared), postgres.clone())
    });
    let shared = Arc::clone(&scheduler);
    tasks.start("watch_nats", Policy::restart(), move || {
        watch_nats(Arc::clone(&shared), nats.clone())
    });
    ready.set(true);
    tracing::info!("the scheduler is ready");
    let ended = tasks.join(drain).await;
    scheduler.store.close().await;
    Ok(ended?)
}

async fn watch_postgres(scheduler: Arc<Scheduler>, postgres: Dependency) -> Result<(), Error> {
    let store = &scheduler.store;
    let never = postgres.watch(|| async {
        let connections = store.connections();
        show_connections(connections.used, connections.idle);
        store.takes_writes().await.is_ok()
    });
    match never.await {}
}

async fn watch_nats(scheduler: Arc<Scheduler>, nats: Dependency) -> Result<(), Error> {
    let never = nats.watch(|| std::future::ready(scheduler.bus.is_connected()));
    match never.await {}
}

/// Counts the outcome of an event.
pub(crate) fn count_transition(transitioned: &Transitioned, event: &str) {
    match transitioned {
        Transitioned::Moved(changed) => {
            let labels = [
                ("event", changed.event.as_str()),
                ("state", changed.to.as_str()),
            ];
            telemetry::counter(Metric::JobTransitions, &labels).increment(1);
        }
        Transitioned::Ignored { reason, .. } => {
            telemetry::counter(
                Metric::JobEventsIgnored,
                &[("event", event), ("reason", reason.as_str())],
            )
            .increment(1);
        }
        Transitioned::Recorded
        | Transitioned::Fenced
        | Transitioned::Refused(_)
        | Transitioned::NotFound => {}
    }
}
