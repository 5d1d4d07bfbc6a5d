//! Settings of a scheduler.

use std::net::SocketAddr;
use std::time::Duration;

use clap::value_parser;
use secrecy::SecretString;
use service::Readiness;
use store::SealKey;

/// Settings of a scheduler. Each can be given as a flag or in the environment.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Postgres, as postgres://user:password@host:port/database.
    #[arg(long, env = "WHERRY_DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// NATS, as nats://user:password@host:port.
    #[arg(long, env = "WHERRY_NATS_URL", hide_env_values = true)]
    pub nats_url: SecretString,
    /// Key of secrets at rest: 64 hexadecimal digits, the same for every process of a deployment.
    #[arg(long, env = "WHERRY_SEAL_KEY", hide_env_values = true, value_parser = SealKey::from_hex)]
    pub seal_key: SealKey,
    /// Seconds that one statement may take in Postgres, and the wait for a row that another holds. What takes longer is
    /// tried again.
    #[arg(long, env = "WHERRY_STATEMENT_TIMEOUT_SECS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=600))]
    pub statement_timeout_secs: u64,
    /// Seconds that NATS may take to connect, and to answer.
    #[arg(long, env = "WHERRY_NATS_TIMEOUT_SECS", default_value_t = 5, value_parser = value_parser!(u64).range(1..=60))]
    pub nats_timeout_secs: u64,
    /// Address of /healthz, /readyz and /metrics; none without it.
    #[arg(long, env = "WHERRY_HEALTH")]
    pub health: Option<SocketAddr>,
    /// Jobs with a slot that may wait for a worker, over all tenants. A small window keeps the work queue short, so
    /// that a tenant with many jobs can't stand in front of the others.
    #[arg(long, env = "WHERRY_ADMISSION_WINDOW", default_value_t = 32, value_parser = value_parser!(i64).range(1..=100_000))]
    pub admission_window: i64,
    /// Seconds that a run keeps its worker's place at least when an account that holds fewer waits for one. Then the
    /// run is queued again and continues from what was copied.
    #[arg(long, env = "WHERRY_PLACE_SECS", default_value_t = 600, value_parser = value_parser!(u64).range(1..=604_800))]
    pub place_secs: u64,
    /// Seconds between checks of the database when nothing wakes a task earlier.
    #[arg(long, env = "WHERRY_POLL_SECS", default_value_t = 5, value_parser = value_parser!(u64).range(1..=300))]
    pub poll_secs: u64,
    /// Seconds between checks for leases that ran out.
    #[arg(long, env = "WHERRY_SWEEP_SECS", default_value_t = 2, value_parser = value_parser!(u64).range(1..=300))]
    pub sweep_secs: u64,
    /// Seconds after which a request is repeated.
    #[arg(long, env = "WHERRY_RECONCILE_SECS", default_value_t = 15, value_parser = value_parser!(u64).range(1..=3600))]
    pub reconcile_secs: u64,
    /// Messages that the relay publishes at once.
    #[arg(long, env = "WHERRY_RELAY_BATCH", default_value_t = 100, value_parser = value_parser!(i64).range(1..=10_000))]
    pub relay_batch: i64,
    /// Seconds that tasks have to end when the scheduler drains.
    #[arg(long, env = "WHERRY_DRAIN_SECS", default_value_t = 30, value_parser = value_parser!(u64).range(0..=3600))]
    pub drain_secs: u64,
    /// Conditions of readiness, shared by the roles of one process.
    #[arg(skip)]
    pub readiness: Readiness,
}

impl Config {
    pub(crate) fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_secs)
    }

    pub(crate) fn place(&self) -> Duration {
        Duration::from_secs(self.place_secs)
    }
}
