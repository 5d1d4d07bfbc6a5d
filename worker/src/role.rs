//! The worker's process: pulls commands while it has slots, keeps its leases, sweeps orphans.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, BusConfig};
use rand::RngExt as _;
use secrecy::ExposeSecret as _;
use service::{Dependency, Policy, Readiness, Shutdown, TaskGroup, health, show_connections};
use store::{ConnectConfig, Store};
use telemetry::Metric;
use transfer::disk::Reserve;

use crate::leases::Leases;
use crate::provider::{Cgroups, ProcessProvider};
use crate::pull::Puller;
use crate::removal;
use crate::run::Context;
use crate::shares::Shares;
use crate::stores::Stores;
use crate::{Config, Error};

/// Pauses between two sweeps of orphans and between two checks of the free space.
const SWEEP_INTERVAL: Duration = Duration::from_secs(120);
const SPACE_INTERVAL: Duration = Duration::from_secs(15);

/// Runs the worker until it is asked to end. Its runs are then handed over, and continue on other workers.
///
/// # Errors
/// Errors that a person must act on: see [`Error`].
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    config.check()?;
    let (address, readiness) = (config.health, config.readiness.clone());
    let worked = Box::pin(work(config, &shutdown));
    health::shown(address, readiness, &shutdown, worked).await
}

async fn work(config: Config, shutdown: &Shutdown) -> Result<(), Error> {
    let ready = config.readiness.condition("worker");
    let [postgres, nats, stores_write] = ["postgres", "nats", "stores"]
        .map(|name| Dependency::new(&config.readiness, "worker", name));
    make_directory(&config.worker_dir.join("instances"), "--worker-dir")?;
    make_directory(&config.image_store, "--image-store")?;
    warn_if_open(&config.worker_dir, "--worker-dir", &config.readiness);
    warn_if_open(&config.image_store, "--image-store", &config.readiness);
    // New at every start: a restarted worker is another worker, and can't mistake its own old leases for valid ones.
    let worker = format!("w-{:012x}", rand::rng().random::<u64>() >> 16);
    let mut connect = ConnectConfig::new(config.database_url.expose_secret(), "wherry worker");
    connect.max_connections = config.slots + 4;
    connect.statement_timeout = Duration::from_secs(config.statement_timeout_secs);
    let store = Store::connect(&connect, config.seal_key.clone()).await?;
    let bus = Bus::connect(&BusConfig {
        timeout: Duration::from_secs(config.nats_timeout_secs),
        ..BusConfig::new(
            config.nats_url.expose_secret(),
            format!("wherry worker {worker}"),
        )
    })
    .await?;
    let provider = Arc::new(ProcessProvider {
        root: config.worker_dir.join("instances"),
        program: match &config.receiver_program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(Error::OwnProgram)?,
        },
        image_store: config.image_store.clone(),
        listen: config.receiver_listen,
        start_timeout: config.receiver_timeout(),
        park_timeout: Duration::from_secs(config.receiver_park_secs),
        limits: config.receiver_limits(),
        cgroups: Cgroups::of_this_worker(),
        reserve_mib: config.reserve_mib,
    });
    let leases = Leases::new(worker.clone(), config.lease_ttl(), config.lease_margin());
    let drain = Duration::from_secs(config.drain_secs);
    telemetry::gauge(Metric::WorkerSlotsLimit, &[]).set(f64::from(config.slots));
    let shares = Shares::new(config.bandwidth_limit);
    let stores = Stores::new(
        config.worker_dir.join("instances"),
        config.image_store.clone(),
        Reserve::of_mib(config.reserve_mib),
    );
    let context = Arc::new(Context {
        config,
        worker: worker.clone(),
        store,
        bus,
        provider,
        shares,
        stores,
        shutdown: shutdown.clone(),
    });

    let tasks = TaskGroup::new(shutdown.clone());
    let puller = Arc::new(Puller::new(
        Arc::clone(&context),
        leases.clone(),
        tasks.clone(),
    ));
    tasks.start("pull", Policy::restart(), move || {
        Arc::clone(&puller).pull()
    });
    // Renewal continues while runs are handed over.
    let (renewing, kept) = (Arc::clone(&context), leases.clone());
    let renewal = TaskGroup::new(shutdown.child());
    renewal.start("renew_leases", Policy::restart().finishes(), move || {
        renew(Arc::clone(&renewing), kept.clone())
    });
    let living = Arc::clone(&context);
    tasks.start("show_places", Policy::restart().finishes(), move || {
        show_places(Arc::clone(&living))
    });
    let sweeping = Arc::clone(&context);
    tasks.start("sweep_orphans", Policy::restart(), move || {
        sweep(Arc::clone(&sweeping))
    });
    let looking = Arc::clone(&context);
    tasks.start("show_space", Policy::restart(), move || {
        show_space(Arc::clone(&looking))
    });
    let watching = Arc::clone(&context);
    tasks.start("watch_postgres", Policy::restart(), move || {
        watch_postgres(Arc::clone(&watching), postgres.clone())
    });
    let watching = Arc::clone(&context);
    tasks.start("watch_nats", Policy::restart(), move || {
        watch_nats(Arc::clone(&watching), nats.clone())
    });
    let watching = Arc::clone(&context);
    tasks.start("watch_stores", Policy::restart(), move || {
        watch_stores(Arc::clone(&watching), stores_write.clone())
    });
    ready.set(true);
    tracing::info!(worker, slots = context.config.slots, "the worker is ready");
    let ended = tasks.join(drain).await;
    renewal.shutdown().exit();
    renewal.join(Duration::from_secs(1)).await?;
    context.store.close().await;
    Ok(ended?)
}

fn make_directory(path: &Path, flag: &'static str) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Directory {
            path: path.to_owned(),
            flag,
            source,
        })
}

/// Warns of a directory that other accounts may open, since it contains the disks of servers. That may be intended, so
/// it is no error.
fn warn_if_open(path: &Path, flag: &'static str, readiness: &Readiness) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.mode() & 0o777;
    // A group that may read was chosen by the operator: that of a gateway under another user.
    if mode & 0o027 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "other accounts of this host may open the directory of {flag}: chmod o= closes it");
        readiness.warn(format!(
            "other accounts of the worker's host may open the directory of {flag} (mode {mode:o})"
        ));
    }
}

/// Renews leases in time, and gives up those whose trust runs out in between.
async fn renew(context: Arc<Context>, leases: Leases) -> Result<(), Error> {
    let interval = context.config.lease_renewal();
    let mut next = Instant::now() + interval;
    loop {
        let wake = leases
            .first_deadline()
            .map_or(next, |deadline| deadline.min(next));
        let asked = tokio::select! {
            () = tokio::time::sleep_until(wake.into()) => false,
            () = leases.renewal_asked() => true,
        };
        if asked || Instant::now() >= next {
            next = Instant::now() + interval;
            leases.renew(&context.store).await;
        }
        leases.give_up_untrusted();
    }
}

/// Reports this worker's places to the admission of runs, for as long as it accepts runs.
async fn show_places(context: Arc<Context>) -> Result<(), Error> {
    loop {
        let (slots, ttl) = (context.config.slots, context.config.lease_ttl());
        let told = context
            .store
            .worker_lives(&context.worker, slots, ttl)
            .await;
        if let Err(error) = told {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the places of this worker could not be renewed"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(context.config.lease_renewal()) => {}
            () = context.shutdown.draining() => {
                leave(&context).await;
                return Ok(());
            }
        }
    }
}

/// Withdraws the worker's places when it begins to drain: the runs that it hands over are for other workers.
async fn leave(context: &Context) {
    let left = context.store.worker_leaves(&context.worker).await;
    if let Err(error) = left {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the places of this worker run out by themselves"
        );
    }
}

async fn sweep(context: Arc<Context>) -> Result<(), Error> {
    loop {
        removal::sweep_orphans(&context).await;
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Records the free space on disk as metrics.
async fn show_space(context: Arc<Context>) -> Result<(), Error> {
    loop {
        for (store, path) in [
            ("instances", &context.config.worker_dir),
            ("images", &context.config.image_store),
        ] {
            if let Ok(found) = rustix::fs::statvfs(path) {
                let label = [("store", store)];
                telemetry::gauge(Metric::StorageFreeBytes, &label)
                    .set(found.f_bavail as f64 * found.f_frsize as f64);
                telemetry::gauge(Metric::StorageSizeBytes, &label)
                    .set(found.f_blocks as f64 * found.f_frsize as f64);
            }
        }
        tokio::time::sleep(SPACE_INTERVAL).await;
    }
}

async fn watch_postgres(context: Arc<Context>, postgres: Dependency) -> Result<(), Error> {
    let store = &context.store;
    let never = postgres.watch(|| async {
        let connections = store.connections();
        show_connections(connections.used, connections.idle);
        store.takes_writes().await.is_ok()
    });
    match never.await {}
}

async fn watch_stores(context: Arc<Context>, stores: Dependency) -> Result<(), Error> {
    let never = stores.watch(|| context.stores.take_writes());
    match never.await {}
}

async fn watch_nats(context: Arc<Context>, nats: Dependency) -> Result<(), Error> {
    let never = nats.watch(|| std::future::ready(context.bus.is_connected()));
    match never.await {}
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_store_is_made_closed_and_an_open_one_is_warned_of() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("a/b");
        make_directory(&store, "--image-store").unwrap();
        let readiness = Readiness::new();
        warn_if_open(&store, "--image-store", &readiness);
        assert_eq!(readiness.warnings(), [] as [String; 0]);
        for mode in [0o720, 0o770, 0o701, 0o704, 0o755] {
            let readiness = Readiness::new();
            std::fs::set_permissions(&store, Permissions::from_mode(mode)).unwrap();
            warn_if_open(&store, "--image-store", &readiness);
            let warnings = readiness.warnings();
            assert!(
                warnings[0].contains("--image-store (mode 7"),
                "{warnings:?}"
            );
        }
    }
}
