//! A deployment with one tenant, and agents that run in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_gateway::agents::{self, Doorbell, Listener};
use clap::Parser as _;
use domain::TenantId;
use ring::digest::{SHA256, digest};
use service::Shutdown;
use sqlx::PgPool;
use store::Store;
use tempfile::TempDir;
use testkit::wait;
use tokio::task::JoinHandle;

/// Longest wait for anything that should take only a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// Properties of an activation code that a test may change.
pub struct Code {
    pub secret: &'static str,
    pub max_count: i32,
    pub has_expired: bool,
    pub is_disabled: bool,
}

impl Default for Code {
    fn default() -> Self {
        Self {
            secret: "secret",
            max_count: 100,
            has_expired: false,
            is_disabled: false,
        }
    }
}

pub struct Deployment {
    pub store: Store,
    pub pool: PgPool,
    pub tenant: TenantId,
    pub address: SocketAddr,
    pub directory: TempDir,
    pin: String,
    gateway_flags: &'static [&'static str],
    gateway: Option<Gateway>,
    _database: testkit::Database,
}

struct Gateway {
    doorbell: Doorbell,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), agents::Error>>,
}

#[derive(clap::Parser)]
struct GatewayFlags {
    #[command(flatten)]
    agents: agents::Config,
}

#[derive(clap::Parser)]
struct AgentFlags {
    #[command(flatten)]
    agent: agent::Config,
}

/// An agent in this process.
pub struct Agent {
    pub shutdown: Shutdown,
    pub running: JoinHandle<Result<(), agent::Error>>,
}

impl Deployment {
    pub async fn start() -> Self {
        Self::start_with(&["--agents-poll-secs", "1"]).await
    }

    /// Starts a deployment whose gateway has these settings.
    pub async fn start_with(gateway_flags: &'static [&'static str]) -> Self {
        // Another test in this process may have done this first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = testkit::postgres().await;
        let (store, pool) = (database.store().await, database.pool().await);
        let tenant = TenantId::generate();
        sqlx::query("insert into tenant (id, name) values ($1, 'acme')")
            .bind(tenant.as_str())
            .execute(&pool)
            .await
            .unwrap();
        let pin = agents::authority(&store).await.unwrap().fingerprint();
        let mut deployment = Self {
            store,
            pool,
            tenant,
            address: ([127, 0, 0, 1], 0).into(),
            directory: tempfile::tempdir().unwrap(),
            pin,
            gateway_flags,
            gateway: None,
            _database: database,
        };
        deployment.start_gateway().await;
        deployment
    }

    /// Starts the gateway's listener, at the same address as before.
    pub async fn start_gateway(&mut self) {
        let address = self.address.to_string();
        let mut flags = vec!["gateway", "--agents", &address];
        flags.extend(self.gateway_flags);
        let config = GatewayFlags::parse_from(flags).agents;
        let authority = agents::authority(&self.store).await.unwrap();
        let listener = Listener::bind(&config, authority, self.store.clone())
            .await
            .unwrap();
        self.address = listener.address();
        let shutdown = Shutdown::new();
        self.gateway = Some(Gateway {
            doorbell: listener.doorbell(),
            serving: tokio::spawn(listener.serve(shutdown.clone())),
            shutdown,
        });
    }

    /// Returns the doorbell that wakes the agents at the gateway.
    pub fn doorbell(&self) -> Doorbell {
        self.gateway
            .as_ref()
            .expect("the gateway runs")
            .doorbell
            .clone()
    }

    /// Drains the gateway's listener and waits for its end.
    pub async fn stop_gateway(&mut self) {
        let gateway = self.gateway.take().expect("the gateway runs");
        gateway.shutdown.drain();
        tokio::time::timeout(SOON, gateway.serving)
            .await
            .expect("open watches end when the gateway drains")
            .unwrap()
            .unwrap();
    }

    /// Returns an activation code of the tenant, as its user receives it.
    pub async fn code(&self, code: Code) -> String {
        let days = if code.has_expired { -1 } else { 1 };
        let hash = digest(&SHA256, code.secret.as_bytes());
        sqlx::query(
            "insert into access_token (id, tenant, name, code_hash, max_count, valid_days, expires_at, disabled_at)
             values ($1, $2, 'test', $3, $4, 1, now() + make_interval(days => $5), case when $6 then now() end)",
        )
        .bind(format!("at-{}", code.secret))
        .bind(self.tenant.as_str())
        .bind(hash.as_ref())
        .bind(code.max_count)
        .bind(days)
        .bind(code.is_disabled)
        .execute(&self.pool)
        .await
        .unwrap();
        self.code_of(code.secret)
    }

    /// Returns the code with this secret, whether it exists or not.
    pub fn code_of(&self, secret: &str) -> String {
        format!("{secret}.{}", self.pin)
    }

    /// Makes a disk in a file.
    pub fn disk(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Returns the agent's settings: the state directory of this deployment, heartbeats every second, and the given
    /// `flags`.
    pub fn config(&self, flags: &[&str]) -> agent::Config {
        let server = format!("https://{}", self.address);
        let state_dir = self.state_dir().display().to_string();
        let mut all = vec!["agent", "--server", &server];
        if !flags.contains(&"--state-dir") {
            all.extend(["--state-dir", &state_dir]);
        }
        if !flags.contains(&"--heartbeat-secs") {
            all.extend(["--heartbeat-secs", "1"]);
        }
        all.extend(["--reconnect-max-secs", "1"]);
        all.extend(flags);
        AgentFlags::parse_from(all).agent
    }

    /// Starts an agent.
    pub fn agent(&self, flags: &[&str]) -> Agent {
        let shutdown = Shutdown::new();
        let running = tokio::spawn(agent::run(self.config(flags), shutdown.clone()));
        Agent { shutdown, running }
    }

    /// Starts an agent over one disk with a new code, and waits until its source exists.
    pub async fn registered_agent(&self, disk: &Path, flags: &[&str]) -> (Agent, String) {
        let code = self.code(Code::default()).await;
        let disk = disk.display().to_string();
        let file = self.directory.path().join("code");
        std::fs::write(&file, code + "\n").unwrap();
        let file = file.display().to_string();
        let mut all = vec!["--activation-code-file", &file, "--disk", &disk];
        all.extend(flags);
        let agent = self.agent(&all);
        let source = self.the_source().await;
        (agent, source)
    }

    /// Waits for the one source and returns its id.
    pub async fn the_source(&self) -> String {
        self.look("a source has registered", "select id from source")
            .await
    }

    /// Waits until the query finds a row, and returns its one text.
    pub async fn look(&self, what: &str, query: &'static str) -> String {
        let found = wait::some(SOON, what, async || {
            Ok(sqlx::query_scalar(query).fetch_optional(&self.pool).await?)
        });
        found.await.unwrap()
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

impl Agent {
    /// Asks the agent to end and waits until it has.
    pub async fn stop(self) {
        self.shutdown.drain();
        self.ended().await.unwrap();
    }

    /// Returns the agent's outcome.
    pub async fn ended(self) -> Result<(), agent::Error> {
        tokio::time::timeout(SOON, self.running)
            .await
            .expect("the agent ends")
            .unwrap()
    }
}
