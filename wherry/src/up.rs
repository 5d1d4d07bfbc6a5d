//! `wherry up`: every role in one process, on one machine.

mod bootstrap;
mod directory;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser};
use service::{Readiness, Shutdown, TaskGroup};
use store::{ConnectConfig, SealKey, Store};
use telemetry::TelemetryConfig;

use bootstrap::Bootstrap;
use directory::Directory;

/// Time that all roles together have to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(45);

/// Runs every role on this machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Everything lies in the data directory: Postgres, NATS, instances, images, the key for secrets. \
    DIR/bootstrap.json tells scripts where to call and with which key. A second start on the same directory finds everything as it was."
)]
pub(crate) struct Up {
    /// Directory of everything; made if it is not there.
    #[arg(long, env = "WHERRY_DATA_DIR", default_value = "./.wherry/data")]
    data_dir: PathBuf,
    /// Address of the SMC API. Port 0 takes a free one, and keeps it in later starts.
    #[arg(long, env = "WHERRY_API", default_value = "127.0.0.1:8700")]
    api: SocketAddr,
    /// Address that agents call. Port 0 takes a free one, and keeps it in later starts.
    #[arg(long, env = "WHERRY_AGENTS", default_value = "127.0.0.1:8701")]
    agents: SocketAddr,
    /// Address of /healthz, /readyz and /metrics of all roles.
    #[arg(long, env = "WHERRY_HEALTH", default_value = "127.0.0.1:8702")]
    health: SocketAddr,
    /// Postgres to use instead of a private one, as postgres://user:password@host:port/database.
    #[arg(long, env = "WHERRY_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// NATS to use instead of a private one, as nats://user:password@host:port.
    #[arg(long, env = "WHERRY_NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Key of secrets at rest, 64 hexadecimal digits. Without it, one is made and kept in the data directory.
    #[arg(long, env = "WHERRY_SEAL_KEY", hide_env_values = true)]
    seal_key: Option<String>,
    /// Directory of the image store. Without it, `images` in the data directory.
    #[arg(long, env = "WHERRY_IMAGE_STORE")]
    image_store: Option<PathBuf>,
    /// Runs at once.
    #[arg(long, env = "WHERRY_WORKER_SLOTS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slots: u32,
    /// The region that this service is, `RegionId` on the wire.
    #[arg(long, env = "WHERRY_REGION", default_value = "local")]
    region: String,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryConfig,
}

/// The servers that `up` runs itself, as long as this lives.
struct Servers {
    postgres: Option<servers::Postgres>,
    nats: Option<servers::Nats>,
}

pub(crate) async fn run(up: Up, shutdown: Shutdown) -> anyhow::Result<()> {
    let directory = Directory::open(&up.data_dir)?;
    let seal_key = directory.seal_key(up.seal_key.as_deref())?;
    let (servers, database_url, nats_url) = start_servers(&up, &directory).await?;
    let ran = Box::pin(run_roles(
        &up,
        &directory,
        &seal_key,
        &database_url,
        &nats_url,
        &shutdown,
    ))
    .await;
    if let Some(nats) = servers.nats {
        nats.stop().await;
    }
    if let Some(postgres) = servers.postgres {
        postgres.stop().await;
    }
    ran
}

async fn start_servers(
    up: &Up,
    directory: &Directory,
) -> anyhow::Result<(Servers, String, String)> {
    let (postgres, database_url) = match &up.database_url {
        Some(url) => (None, url.clone()),
        None => {
            let postgres =
                servers::Postgres::start(&directory.path("postgres"), servers::Durability::Full)
                    .await?;
            let url = postgres.url();
            (Some(postgres), url)
        }
    };
    let (nats, nats_url) = match &up.nats_url {
        Some(url) => (None, url.clone()),
        None => {
            let nats = servers::Nats::start(&directory.path("nats")).await?;
            let url = nats.url();
            (Some(nats), url)
        }
    };
    Ok((Servers { postgres, nats }, database_url, nats_url))
}

async fn run_roles(
    up: &Up,
    directory: &Directory,
    seal_key: &str,
    database_url: &str,
    nats_url: &str,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let connect = ConnectConfig::new(database_url, "wherry up");
    store::migrate(&connect).await?;
    let store = Store::connect(&connect, SealKey::from_hex(seal_key)?).await?;
    // Asked for once before anything starts: whoever gave a wrong address is told so in one sentence.
    bus::Bus::connect(&bus::BusConfig::new(nats_url, "wherry up")).await?;
    let before = Bootstrap::read(directory)?;
    let readiness = Readiness::new();
    let health = service::bind(
        kept_port(up.health, before.as_ref().and_then(Bootstrap::health)),
        "--health",
    )
    .await?;
    let metrics_url = format!("http://{}/metrics", health.local_addr()?);
    let settings = Settings {
        database_url,
        nats_url,
        seal_key,
    };

    let mut gateway: api_gateway::Config = settings.config("gateway");
    gateway.api = kept_port(up.api, before.as_ref().and_then(Bootstrap::api));
    gateway.agents.agents = kept_port(up.agents, before.as_ref().and_then(Bootstrap::agents));
    gateway.region.clone_from(&up.region);
    gateway.image_store = Some(
        up.image_store
            .clone()
            .unwrap_or_else(|| directory.path("images")),
    );
    let admin = directory.path(crate::admin::IN_DATA_DIR);
    gateway.admin = Some(admin.clone());
    gateway.health = None;
    gateway.readiness = readiness.clone();
    let images = gateway.image_store.clone();
    let gateway = api_gateway::Server::bind(gateway).await?;
    let (api, agents) = (gateway.api_address(), gateway.agents_address());

    let mut scheduler: scheduler::Config = settings.config("scheduler");
    scheduler.health = None;
    scheduler.readiness = readiness.clone();

    let mut worker: worker::Config = settings.config("worker");
    worker.worker_dir = directory.path("worker");
    worker.image_store = images.unwrap_or_else(|| directory.path("images"));
    worker.slots = up.slots;
    worker.health = None;
    worker.readiness = readiness.clone();

    // Each role drains by itself and bounds how long; this group only keeps them together.
    let tasks = TaskGroup::new(shutdown.clone());
    let shown = service::health::serve(health, readiness, shutdown.child());
    let (serving, scheduling, working) = (shutdown.clone(), shutdown.clone(), shutdown.clone());
    let showing = TaskGroup::new(shutdown.child());
    showing.start_once("health", shown);
    tasks.start_once("gateway", gateway.serve(serving));
    tasks.start_once("scheduler", scheduler::run(scheduler, scheduling));
    tasks.start_once("worker", worker::run(worker, working));

    let endpoints = bootstrap::Endpoints {
        api,
        agents,
        metrics_url,
        region: up.region.clone(),
    };
    let ready = tokio::select! {
        ready = bootstrap::prepare(directory, &store, before, &endpoints) => Some(ready),
        () = shutdown.draining() => None,
    };
    match ready {
        Some(Ok(bootstrap)) => {
            directory.write_operator(database_url, seal_key, &admin)?;
            println!(
                "wherry is ready: api {}, agents {}, metrics {}, settings {}",
                bootstrap.endpoint,
                bootstrap.agent_endpoint,
                bootstrap.metrics_url,
                directory.path(bootstrap::FILE).display()
            );
        }
        Some(Err(error)) => {
            shutdown.drain();
            let _first_error_counts = tasks.join(DRAIN_TIMEOUT).await;
            return Err(error.context("wherry could not prepare its first tenant"));
        }
        None => {}
    }
    let ended = tasks.join(DRAIN_TIMEOUT).await;
    showing.shutdown().exit();
    let _shown = showing.join(Duration::from_secs(1)).await;
    store.close().await;
    ended.map_err(unwrap_task)
}

/// The role's own error says more than that its task failed.
fn unwrap_task(failure: service::TaskFailure) -> anyhow::Error {
    anyhow::Error::new(failure)
}

/// Port 0 means the port of the last start, if there was one that is still free.
fn kept_port(asked: SocketAddr, before: Option<SocketAddr>) -> SocketAddr {
    match before {
        Some(before) if asked.port() == 0 && std::net::TcpListener::bind(before).is_ok() => before,
        _ => asked,
    }
}

/// What all roles share.
struct Settings<'a> {
    database_url: &'a str,
    nats_url: &'a str,
    seal_key: &'a str,
}

impl Settings<'_> {
    /// A role's settings: its defaults, the environment, and what all roles share.
    fn config<T: Args>(&self, role: &'static str) -> T {
        #[derive(Parser)]
        struct Only<T: Args> {
            #[command(flatten)]
            config: T,
        }
        let arguments = [
            role,
            "--database-url",
            self.database_url,
            "--nats-url",
            self.nats_url,
            "--seal-key",
            self.seal_key,
        ];
        Only::<T>::parse_from(arguments).config
    }
}

/// Why the data directory can't be used, for people.
pub(super) fn in_directory<T>(
    result: std::io::Result<T>,
    what: &str,
    path: &std::path::Path,
) -> anyhow::Result<T> {
    result.with_context(|| {
        format!(
            "can't {what} {}: choose another directory with --data-dir",
            path.display()
        )
    })
}
