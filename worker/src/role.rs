//! The worker's process: pulls commands while it has slots, keeps its leases, sweeps orphans.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, BusConfig, Delivery, Received};
use domain::message::{Command, TraceHeaders};
use domain::{JobId, Run};
use rand::RngExt as _;
use secrecy::ExposeSecret as _;
use service::{Policy, Shutdown, TaskGroup, health};
use store::lease::Claim;
use store::{ConnectConfig, Store};
use telemetry::Metric;
use tracing::Instrument as _;

use crate::leases::Leases;
use crate::provider::ProcessProvider;
use crate::removal::{self, Removal};
use crate::run::{self, Context};
use crate::{Config, Error};

/// Longest wait of one request for commands.
const PULL_WAIT: Duration = Duration::from_secs(5);
/// Pause while all slots are used, and after NATS has failed.
const PULL_PAUSE: Duration = Duration::from_millis(200);
/// When a command that can't be done now is given out again.
const LATER: Duration = Duration::from_secs(5);
/// Between two sweeps of orphans and looks at the disks.
const SWEEP_INTERVAL: Duration = Duration::from_secs(120);
const SPACE_INTERVAL: Duration = Duration::from_secs(15);

/// Runs the worker until it is told to end. Runs that it drives are handed over then, and go on elsewhere.
///
/// # Errors
/// What a person must act on: see [`Error`].
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    config.check()?;
    let (address, readiness) = (config.health, config.readiness.clone());
    let worked = Box::pin(work(config, &shutdown));
    health::shown(address, readiness, &shutdown, worked).await
}

async fn work(config: Config, shutdown: &Shutdown) -> Result<(), Error> {
    let ready = config.readiness.condition("worker");
    make_directory(&config.worker_dir.join("instances"), "--worker-dir")?;
    make_directory(&config.image_store, "--image-store")?;
    // New at every start: a worker that comes back is another one, and can't take its own old leases for live.
    let worker = format!("w-{:012x}", rand::rng().random::<u64>() >> 16);
    let mut connect = ConnectConfig::new(config.database_url.expose_secret(), "wherry worker");
    connect.max_connections = config.slots + 4;
    let store = Store::connect(&connect, config.seal_key.clone()).await?;
    let bus = Bus::connect(&BusConfig::new(
        config.nats_url.expose_secret(),
        format!("wherry worker {worker}"),
    ))
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
    });
    let leases = Leases::new(worker.clone(), config.lease_ttl(), config.lease_margin());
    let drain = Duration::from_secs(config.drain_secs);
    telemetry::gauge(Metric::WorkerSlotsLimit, &[]).set(f64::from(config.slots));
    let context = Arc::new(Context {
        config,
        worker: worker.clone(),
        store,
        bus,
        provider,
        shutdown: shutdown.clone(),
    });

    let tasks = TaskGroup::new(shutdown.clone());
    let puller = Puller {
        context: Arc::clone(&context),
        leases: leases.clone(),
        tasks: tasks.clone(),
    };
    let puller = Arc::new(puller);
    tasks.start("pull", Policy::restart(), move || {
        Arc::clone(&puller).pull()
    });
    // Renewal goes on while runs are handed over.
    let (renewing, kept) = (Arc::clone(&context), leases.clone());
    let renewal = TaskGroup::new(shutdown.child());
    renewal.start("renew_leases", Policy::restart().finishes(), move || {
        renew(Arc::clone(&renewing), kept.clone())
    });
    let sweeping = Arc::clone(&context);
    tasks.start("sweep_orphans", Policy::restart(), move || {
        sweep(Arc::clone(&sweeping))
    });
    let looking = Arc::clone(&context);
    tasks.start("show_dependencies", Policy::restart(), move || {
        show(Arc::clone(&looking))
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
    std::fs::create_dir_all(path).map_err(|source| Error::Directory {
        path: path.to_owned(),
        flag,
        source,
    })
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

async fn sweep(context: Arc<Context>) -> Result<(), Error> {
    loop {
        removal::sweep_orphans(&context).await;
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Shows what the worker depends on: Postgres, NATS, room on disk.
async fn show(context: Arc<Context>) -> Result<(), Error> {
    let up = |dependency: &'static str, is_up: bool| {
        telemetry::gauge(Metric::DependencyUp, &[("dependency", dependency)])
            .set(f64::from(u8::from(is_up)));
    };
    loop {
        up("postgres", context.store.ping().await.is_ok());
        up("nats", context.bus.is_connected());
        let connections = context.store.connections();
        for (state, count) in [("used", connections.used), ("idle", connections.idle)] {
            telemetry::gauge(Metric::PostgresConnections, &[("state", state)])
                .set(f64::from(count));
        }
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

struct Puller {
    context: Arc<Context>,
    leases: Leases,
    tasks: TaskGroup,
}

impl Puller {
    /// Asks for no more commands than there are free slots. Without slots nothing is asked for, not even stops: those reach their run by the
    /// next renewal.
    async fn pull(self: Arc<Self>) -> Result<(), Error> {
        let mut commands = self.context.bus.commands();
        loop {
            let slots = usize::try_from(self.context.config.slots)
                .expect("slots are counted in thousands at most");
            let free = slots.saturating_sub(self.leases.count());
            if free == 0 {
                tokio::time::sleep(PULL_PAUSE).await;
                continue;
            }
            match commands.next(free, PULL_WAIT).await {
                Ok(received) => {
                    for message in received {
                        self.take(message).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no commands from NATS"
                    );
                    tokio::time::sleep(PULL_PAUSE).await;
                }
            }
        }
    }

    async fn take(&self, message: Received) {
        let outcome = match message {
            Received::Command(delivery) => self.obey(&delivery).await,
            Received::Undecodable(undecodable) => {
                let (subject, reason) = (&undecodable.subject, &undecodable.reason);
                tracing::warn!(
                    subject,
                    reason,
                    "a message can't be read and goes to the dead letters"
                );
                let buried = self
                    .context
                    .store
                    .bury_message(subject, &undecodable.payload, &TraceHeaders::new(), reason)
                    .await;
                // Kept where it is when the database can't take it.
                if buried.is_ok() {
                    let _comes_again = undecodable.discard().await;
                }
                "dead"
            }
        };
        telemetry::counter(
            Metric::Messages,
            &[("stream", bus::COMMANDS), ("outcome", outcome)],
        )
        .increment(1);
    }

    async fn obey(&self, delivery: &Delivery) -> &'static str {
        let done = match &delivery.command {
            Command::StartRun { job_id, run } => {
                self.start_run(job_id, *run, &delivery.headers).await
            }
            Command::StopRun { job_id } => {
                // Another worker's job: that one finds out by its renewal.
                if self.leases.look_soon(job_id) {
                    Done::Handled
                } else {
                    Done::Ignored
                }
            }
            Command::RemoveJob { job_id } => {
                let keep = |lease: &store::lease::Lease, since| {
                    self.leases.keep(&lease.job_id, lease.epoch, since)
                };
                removal::remove_job(&self.context, job_id, keep)
                    .await
                    .into()
            }
            Command::RemoveImage { image_id } => {
                removal::remove_image(&self.context, image_id).await.into()
            }
        };
        match done {
            Done::Later => {
                let _comes_again = delivery.later(LATER).await;
                "retried"
            }
            Done::Handled | Done::Ignored => {
                if let Err(error) = delivery.acknowledge().await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a command was not acknowledged and may come again"
                    );
                }
                if done == Done::Handled {
                    "handled"
                } else {
                    "ignored"
                }
            }
        }
    }

    async fn start_run(&self, job_id: &JobId, run: Run, headers: &TraceHeaders) -> Done {
        let since = Instant::now();
        let context = &self.context;
        let lease = match context
            .store
            .claim_run(job_id, &context.worker, context.config.lease_ttl())
            .await
        {
            Ok(Claim::Granted(lease)) => lease,
            Ok(Claim::Held | Claim::NotWanted) => return Done::Ignored,
            Err(error) => {
                tracing::warn!(%job_id, %run, error = &error as &dyn std::error::Error, "a job can't be claimed now");
                return Done::Later;
            }
        };
        telemetry::counter(Metric::LeasesClaimed, &[]).increment(1);
        let held = self.leases.keep(job_id, lease.epoch, since);
        let span = tracing::info_span!("run", %job_id, run = %lease.run, epoch = %lease.epoch);
        telemetry::trace_context::extract(&span, headers);
        let driving =
            run::drive(Arc::clone(context), lease, held, headers.clone()).instrument(span);
        // A run that panics is one run lost, not a worker: its lease runs out and it starts again.
        let mut driving = Some(driving);
        self.tasks.start(
            "run",
            Policy {
                on_error: service::OnError::Restart(service::Backoff::default()),
                on_cancel: service::OnCancel::Finish,
            },
            move || {
                let driving = driving.take();
                async move {
                    if let Some(driving) = driving {
                        driving.await;
                    }
                    Ok::<(), std::convert::Infallible>(())
                }
            },
        );
        Done::Handled
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Handled,
    Ignored,
    Later,
}

impl From<Removal> for Done {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Done => Self::Handled,
            Removal::Later => Self::Later,
        }
    }
}
