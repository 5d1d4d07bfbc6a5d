//! A whole Wherry out of real processes: a private Postgres and NATS, every role as its own `wherry` process, agents
//! with their disks. Tests kill, stop, pause and restart any of them.

mod database;
pub mod disk;
mod loop_device;
mod process;
mod shell;
mod small_store;
mod tenant;
mod trouble;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use servers::{Durability, Nats, Postgres};
use store::{ConnectConfig, SealKey, Store};
use tempfile::TempDir;

pub use loop_device::LoopDevice;
pub use process::Process;
pub use shell::{Shell, has};
pub use small_store::SmallStore;
pub use tenant::{Job, JobOptions, Source, Tenant};
pub use trouble::Paused;

use crate::program::free_address;
use crate::{program, wait};

/// Longest time from a role's start until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The region of every test cluster.
pub const REGION: &str = "cn-wherry";

/// The parts of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The `wherry` binary: `env!("CARGO_BIN_EXE_wherry")` in its own tests.
    pub binary: PathBuf,
    /// Worker processes.
    pub workers: usize,
    /// More environment for every role and every agent.
    pub environment: Vec<(String, String)>,
}

/// A running cluster. Dropping it ends every process.
#[derive(Debug)]
pub struct Cluster {
    // Roles end before the servers that they use, and the directory goes last.
    roles: BTreeMap<String, Process>,
    /// The database, for reading what no API shows.
    pub store: Store,
    /// The private NATS.
    pub nats: Nats,
    /// The private Postgres.
    pub postgres: Postgres,
    config: ClusterConfig,
    api: String,
    agents: String,
    directory: TempDir,
}

impl Cluster {
    /// Starts the servers and every role, and waits until all are ready.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("wherry-cluster-")
            .tempdir()?;
        let postgres =
            Postgres::start(&directory.path().join("postgres"), Durability::Test).await?;
        let nats = Nats::start(&directory.path().join("nats")).await?;
        let seal_key = SealKey::generate_hex();
        let connect = ConnectConfig::new(postgres.url(), "testkit");
        store::migrate(&connect).await?;
        let store = Store::connect(&connect, SealKey::from_hex(&seal_key)?).await?;

        let (api, agents) = (free_address()?, free_address()?);
        let mut cluster = Self {
            roles: BTreeMap::new(),
            store,
            nats,
            postgres,
            config,
            api,
            agents,
            directory,
        };
        let environment = cluster.role_environment(&seal_key);
        let images = cluster.images().display().to_string();
        let gateway = [
            "--api",
            &cluster.api,
            "--agents",
            &cluster.agents,
            "--image-store",
            &images,
            // A machine that is busy with other tests is no reason to give a call up.
            "--api-timeout-ms",
            "10000",
        ]
        .map(str::to_owned);
        cluster.start_role("gateway", "gateway", &gateway, &environment)?;
        cluster.start_role("scheduler", "scheduler", &[], &environment)?;
        let instances = cluster.path("worker").display().to_string();
        let worker = ["--worker-dir", &instances, "--image-store", &images].map(str::to_owned);
        for number in 1..=cluster.config.workers {
            cluster.start_role(&format!("worker-{number}"), "worker", &worker, &environment)?;
        }
        cluster.all_ready().await?;
        Ok(cluster)
    }

    /// Starts one role under its own name and with its own health address.
    fn start_role(
        &mut self,
        name: &str,
        role: &str,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<()> {
        let metrics = free_address()?;
        let arguments: Vec<String> = [role, "--health", &metrics]
            .map(str::to_owned)
            .into_iter()
            .chain(arguments.iter().cloned())
            .collect();
        let process = Process::start(
            &self.config.binary,
            self.directory.path(),
            name,
            &arguments,
            environment,
        )?;
        self.roles.insert(name.to_owned(), process);
        Ok(())
    }

    fn role_environment(&self, seal_key: &str) -> Vec<(String, String)> {
        let mut environment = vec![
            ("WHERRY_DATABASE_URL".to_owned(), self.postgres.url()),
            ("WHERRY_NATS_URL".to_owned(), self.nats.url()),
            ("WHERRY_SEAL_KEY".to_owned(), seal_key.to_owned()),
            ("WHERRY_REGION".to_owned(), REGION.to_owned()),
        ];
        environment.extend(self.config.environment.iter().cloned());
        environment
    }

    /// Throws NATS' streams away and kills it; it comes back empty, at the same address.
    pub async fn wipe_nats(&mut self) -> anyhow::Result<()> {
        let before = self.nats.pid().context("NATS runs")?;
        std::fs::remove_dir_all(self.path("nats/streams")).context("throw the streams away")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(before)?),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        wait::until(READY_TIMEOUT, "NATS is back", async || {
            Ok(self.nats.pid().is_some_and(|pid| pid != before))
        })
        .await
    }

    /// A role's process: `gateway`, `scheduler`, `worker-1` …
    pub fn role(&mut self, name: &str) -> &mut Process {
        self.roles
            .get_mut(name)
            .unwrap_or_else(|| panic!("the cluster has no process {name}"))
    }

    /// Kills a role's process with SIGKILL and starts it again.
    pub async fn kill_and_restart(&mut self, name: &str) -> anyhow::Result<()> {
        self.role(name).kill()?;
        self.role(name).restart()?;
        self.ready(name).await
    }

    /// Waits until a role reports that it is ready.
    pub async fn ready(&mut self, name: &str) -> anyhow::Result<()> {
        self.role(name).ready().await
    }

    async fn all_ready(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> = self.roles.keys().cloned().collect();
        for name in names {
            self.ready(&name).await?;
        }
        Ok(())
    }

    /// The process of the receiver that has the job's disks now, if there is one.
    pub async fn receiver_now(&self, job: &Job) -> anyhow::Result<Option<i32>> {
        let Some(instance) = job.describe().await?.transition_instance_id else {
            return Ok(None);
        };
        let lock = self.path("worker/instances").join(instance).join("lock");
        let locked_by = std::fs::read_to_string(lock).unwrap_or_default();
        let receiver = locked_by.trim().parse().ok();
        Ok(receiver.filter(|&receiver| !program::is_gone(receiver)))
    }

    /// The process of the job's receiver, as soon as there is one.
    pub async fn receiver_of(&self, job: &Job) -> anyhow::Result<i32> {
        let what = format!("job {} has a receiver", job.id);
        wait::some(READY_TIMEOUT, &what, async || self.receiver_now(job).await).await
    }

    /// The worker that drives the job: the one whose child the job's receiver is.
    pub async fn worker_of(&self, job: &Job) -> anyhow::Result<String> {
        let parent = program::parent_of(self.receiver_of(job).await?);
        self.roles
            .iter()
            .find(|(_, process)| process.pid().map(nix::unistd::Pid::as_raw) == parent)
            .map(|(name, _)| name.clone())
            .with_context(|| format!("no worker of the cluster drives job {}", job.id))
    }

    /// Returns the text that a role serves at `/metrics`.
    pub async fn metrics(&self, name: &str) -> anyhow::Result<String> {
        let url = format!("http://{}/metrics", self.metrics_address(name));
        Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
    }

    fn metrics_address(&self, name: &str) -> String {
        let process = self
            .roles
            .get(name)
            .unwrap_or_else(|| panic!("the cluster has no process {name}"));
        process
            .argument_after("--health")
            .expect("every role is started with --health")
    }

    /// The API's address, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.api)
    }

    /// The address that agents call, as a URL.
    pub fn agents_endpoint(&self) -> String {
        format!("https://{}", self.agents)
    }

    /// The image store.
    pub fn images(&self) -> PathBuf {
        self.path("images")
    }

    /// A path in the cluster's directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The `wherry` binary.
    pub fn binary(&self) -> &Path {
        &self.config.binary
    }

    /// Makes an account with an access key.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<Tenant> {
        Tenant::create(self, name).await
    }
}
