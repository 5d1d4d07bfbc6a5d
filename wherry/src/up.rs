//! `wherry up`: every role in one process, on one machine.

mod bootstrap;
mod directory;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser};
use domain::rate::Rate;
use service::{Readiness, Shutdown, TaskGroup};
use store::{ConnectConfig, SealKey, Store};
use telemetry::TelemetryConfig;

use crate::failure::UsageError;
use crate::output;
use bootstrap::Bootstrap;
use directory::Directory;

/// Time that all roles together have to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(50);

/// Conditions that the roles set when they take work. Named here too, so that a role that has not begun is missing.
const CONDITIONS: [&str; 3] = ["gateway.postgres", "scheduler", "worker"];

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
    /// Address that agents call. Port 0 takes a free one, and keeps it in later starts. Without it, 127.0.0.1:8701, or
    /// a free port where --api takes one.
    #[arg(long, env = "WHERRY_AGENTS")]
    agents: Option<SocketAddr>,
    /// Address of /healthz, /readyz and /metrics of all roles. Without it, 127.0.0.1:8702, or a free port where --api
    /// takes one.
    #[arg(long, env = "WHERRY_HEALTH")]
    health: Option<SocketAddr>,
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
    /// Most that all runs together take from their agents, such as 1gbit or 50MB/s, divided among them evenly.
    #[arg(long, env = "WHERRY_BANDWIDTH_LIMIT", value_name = "RATE")]
    bandwidth_limit: Option<Rate>,
    /// The region that this service is, `RegionId` on the wire.
    #[arg(long, env = "WHERRY_REGION", default_value = "local")]
    region: String,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryConfig,
}

impl Up {
    fn agents(&self) -> SocketAddr {
        self.agents.unwrap_or_else(|| self.beside_api(8701))
    }

    fn health(&self) -> SocketAddr {
        self.health.unwrap_or_else(|| self.beside_api(8702))
    }

    /// The address of a listener that was not given one: its usual port, or a free port if the API takes a free port
    /// too, as it does beside another `wherry up`.
    fn beside_api(&self, port: u16) -> SocketAddr {
        let port = if self.api.port() == 0 { 0 } else { port };
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port))
    }
}

/// The servers that `up` runs itself, as long as this lives.
struct Servers {
    postgres: Option<servers::Postgres>,
    nats: Option<servers::Nats>,
}

pub(crate) async fn run(up: Up, shutdown: Shutdown) -> anyhow::Result<()> {
    let directory = Directory::open(&up.data_dir)?;
    let seal_key = directory.seal_key(up.seal_key.as_deref())?;
    // Faults in the settings are reported before anything starts.
    let roles = Roles::read(&seal_key)?;
    let (servers, database_url, nats_url) = start_servers(&up, &directory).await?;
    let shared = Shared {
        database_url: &database_url,
        nats_url: &nats_url,
        seal_key: &seal_key,
    };
    let ran = Box::pin(run_roles(&up, &directory, roles, &shared, &shutdown)).await;
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
    roles: Roles,
    shared: &Shared<'_>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let connect = ConnectConfig::new(shared.database_url, "wherry up");
    store::migrate(&connect).await?;
    let store = Store::connect(&connect, SealKey::from_hex(shared.seal_key)?).await?;
    // Tried once before anything starts, so that a wrong address is reported in one sentence.
    bus::Bus::connect(&bus::BusConfig::new(shared.nats_url, "wherry up")).await?;
    let before = Bootstrap::read(directory)?;
    let readiness = Readiness::new();
    let health = service::bind(
        kept_port(up.health(), before.as_ref().and_then(Bootstrap::health)),
        "--health",
    )
    .await?;
    let metrics_url = format!("http://{}/metrics", health.local_addr()?);
    for condition in CONDITIONS {
        readiness.condition(condition);
    }
    let Roles {
        mut gateway,
        mut scheduler,
        mut worker,
    } = roles.with(shared);

    gateway.api = kept_port(up.api, before.as_ref().and_then(Bootstrap::api));
    gateway.agents.agents = kept_port(up.agents(), before.as_ref().and_then(Bootstrap::agents));
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
    let images = gateway
        .image_store
        .clone()
        .unwrap_or_else(|| directory.path("images"));
    let gateway = api_gateway::Server::bind(gateway).await?;
    let (api, agents) = (gateway.api_address(), gateway.agents_address());

    scheduler.health = None;
    scheduler.readiness = readiness.clone();

    worker.worker_dir = directory.path("worker");
    worker.image_store = images.clone();
    worker.slots = up.slots;
    worker.bandwidth_limit = up.bandwidth_limit;
    worker.health = None;
    worker.readiness = readiness.clone();

    // Each role drains by itself and bounds how long; this group only keeps them together.
    let tasks = TaskGroup::new(shutdown.clone());
    let shown = service::health::serve(health, readiness.clone(), shutdown.child());
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
        image_store: std::path::absolute(images)?,
    };
    let prepared = async {
        let bootstrap = bootstrap::prepare(directory, &store, before, &endpoints).await;
        let bootstrap = bootstrap.context("wherry could not prepare its first tenant")?;
        all_ready(&readiness).await?;
        anyhow::Ok(bootstrap)
    };
    let ready = tokio::select! {
        ready = prepared => Some(ready),
        () = shutdown.draining() => None,
    };
    match ready {
        Some(Ok(bootstrap)) => {
            directory.write_operator(shared.database_url, shared.seal_key, &admin)?;
            output::line(format_args!(
                "wherry is ready: api {}, agents {}, metrics {}, settings {}",
                bootstrap.endpoint,
                bootstrap.agent_endpoint,
                bootstrap.metrics_url,
                directory.path(bootstrap::FILE).display()
            ));
        }
        Some(Err(error)) => {
            shutdown.drain();
            let _first_error_counts = tasks.join(DRAIN_TIMEOUT).await;
            return Err(error);
        }
        None => {}
    }
    let ended = tasks.join(DRAIN_TIMEOUT).await;
    showing.shutdown().exit();
    let _shown = showing.join(Duration::from_secs(1)).await;
    store.close().await;
    ended.map_err(unwrap_task)
}

/// The role's own error has more detail than the failure of its task.
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

/// Waits until every role takes work.
async fn all_ready(readiness: &Readiness) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(READY_TIMEOUT, async {
        while !readiness.is_ready() {
            tokio::time::sleep(READY_PAUSE).await;
        }
    })
    .await;
    waited.map_err(|_| {
        anyhow::anyhow!(
            "not ready after {READY_TIMEOUT:?}: {}. The log says what is in the way",
            readiness.missing().join(", ")
        )
    })
}

/// Settings that all roles share.
struct Shared<'a> {
    database_url: &'a str,
    nats_url: &'a str,
    seal_key: &'a str,
}

/// Settings of the roles: their defaults and the environment, and in the end what all roles share.
struct Roles {
    gateway: api_gateway::Config,
    scheduler: scheduler::Config,
    worker: worker::Config,
}

impl Roles {
    fn read(seal_key: &str) -> anyhow::Result<Self> {
        SealKey::from_hex(seal_key)?;
        Ok(Self {
            gateway: role_config("gateway", seal_key)?,
            scheduler: role_config("scheduler", seal_key)?,
            worker: role_config("worker", seal_key)?,
        })
    }

    fn with(mut self, shared: &Shared<'_>) -> Self {
        for (database_url, nats_url) in [
            (&mut self.gateway.database_url, &mut self.gateway.nats_url),
            (
                &mut self.scheduler.database_url,
                &mut self.scheduler.nats_url,
            ),
            (&mut self.worker.database_url, &mut self.worker.nats_url),
        ] {
            *database_url = shared.database_url.into();
            *nats_url = shared.nats_url.into();
        }
        self
    }
}

fn role_config<T: Args>(role: &'static str, seal_key: &str) -> anyhow::Result<T> {
    #[derive(Parser)]
    struct Only<T: Args> {
        #[command(flatten)]
        config: T,
    }
    // The addresses are known when the servers run.
    let later = ["--database-url", "", "--nats-url", ""];
    let arguments = [role].into_iter().chain(later);
    let parsed = Only::<T>::try_parse_from(arguments.chain(["--seal-key", seal_key]));
    parsed.map(|only| only.config).map_err(|error| {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default();
        let what = what.trim_start_matches("error: ");
        UsageError(format!(
            "the environment has a setting of the {role} that is wrong: {what}"
        ))
        .into()
    })
}

/// Adds to an error, for people, that the data directory can't be used.
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
