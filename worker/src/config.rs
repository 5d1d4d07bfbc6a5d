//! Settings of a worker.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::value_parser;
use domain::rate::Rate;
use secrecy::SecretString;
use service::Readiness;
use store::SealKey;

use crate::provider::Limits;

/// Settings of a worker. Each can be given as a flag or in the environment.
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
    /// Seconds that one statement may take in Postgres, and the wait for a row that another holds. A statement that
    /// takes longer is tried again.
    #[arg(long, env = "WHERRY_STATEMENT_TIMEOUT_SECS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=600))]
    pub statement_timeout_secs: u64,
    /// Seconds that NATS may take to connect, and to answer.
    #[arg(long, env = "WHERRY_NATS_TIMEOUT_SECS", default_value_t = 5, value_parser = value_parser!(u64).range(1..=60))]
    pub nats_timeout_secs: u64,
    /// Address of /healthz, /readyz and /metrics; none without it.
    #[arg(long, env = "WHERRY_HEALTH")]
    pub health: Option<SocketAddr>,
    /// Directory of the instances. Workers of one machine share it, so that each can continue what another began.
    #[arg(
        long,
        env = "WHERRY_WORKER_DIR",
        default_value = "/var/lib/wherry/worker"
    )]
    pub worker_dir: PathBuf,
    /// Directory of the image store.
    #[arg(
        long,
        env = "WHERRY_IMAGE_STORE",
        default_value = "/var/lib/wherry/images"
    )]
    pub image_store: PathBuf,
    /// Runs that this worker drives at once.
    #[arg(long, env = "WHERRY_WORKER_SLOTS", default_value_t = 8, value_parser = value_parser!(u32).range(1..=1000))]
    pub slots: u32,
    /// Deleted jobs and images whose files this worker removes at once, next to its runs.
    #[arg(long, env = "WHERRY_WORKER_REMOVALS", default_value_t = 2, value_parser = value_parser!(u32).range(1..=100))]
    pub removals: u32,
    /// Times that a failing command is delivered before it becomes a dead letter (`wherry admin dead-letter`). With 20
    /// that is after an hour and a quarter.
    #[arg(long, env = "WHERRY_WORKER_DELIVERIES", default_value_t = 20, value_parser = value_parser!(i64).range(1..=1000))]
    pub deliveries: i64,
    /// Address on which receivers listen for agents.
    #[arg(long, env = "WHERRY_RECEIVER_LISTEN", default_value = "127.0.0.1")]
    pub receiver_listen: IpAddr,
    /// Name or address at which agents reach this machine's receivers. Without it, the address on which they listen.
    #[arg(long, env = "WHERRY_RECEIVER_HOST")]
    pub receiver_host: Option<String>,
    /// Most that all runs of this worker together take from their agents, such as 1gbit or 50MB/s, divided among them
    /// evenly, up to each job's own limit. Without it, there is no limit but the jobs'.
    #[arg(long, env = "WHERRY_BANDWIDTH_LIMIT", value_name = "RATE")]
    pub bandwidth_limit: Option<Rate>,
    /// Program that runs receivers, called as PROGRAM receiver --dir DIR. Without it, this one.
    #[arg(long, env = "WHERRY_RECEIVER_PROGRAM")]
    pub receiver_program: Option<PathBuf>,
    /// Seconds that a lease lives without renewal.
    #[arg(long, env = "WHERRY_LEASE_TTL_SECS", default_value_t = 30, value_parser = value_parser!(u64).range(2..=3600))]
    pub lease_ttl_secs: u64,
    /// Seconds between renewals.
    #[arg(long, env = "WHERRY_LEASE_RENEWAL_SECS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=1200))]
    pub lease_renewal_secs: u64,
    /// Seconds before the end of a lease at which the worker stops trusting it.
    #[arg(long, env = "WHERRY_LEASE_MARGIN_SECS", default_value_t = 5, value_parser = value_parser!(u64).range(0..=1200))]
    pub lease_margin_secs: u64,
    /// Seconds that a run waits for an agent that is silent or can't reach the receiver before it fails.
    #[arg(long, env = "WHERRY_AGENT_PATIENCE_SECS", default_value_t = 3600, value_parser = value_parser!(u64).range(1..=604_800))]
    pub agent_patience_secs: u64,
    /// Seconds without an agent at its receiver after which a run gives its place back. What was copied is kept. The
    /// run checks for its agent again after a minute, and then ever less often, and at once when the agent comes back.
    #[arg(long, env = "WHERRY_AGENT_PARK_SECS", default_value_t = 60, value_parser = value_parser!(u64).range(1..=604_800))]
    pub agent_park_secs: u64,
    /// Seconds that an agent may be connected to its receiver without sending a byte before the run gives its place
    /// back. Reading a disk's layout, and a disk that fails, take their time.
    #[arg(long, env = "WHERRY_AGENT_STILL_SECS", default_value_t = 600, value_parser = value_parser!(u64).range(1..=604_800))]
    pub agent_still_secs: u64,
    /// MiB of its disks that an agent must deal with in an hour; with less the run fails. Where a job's or the worker's
    /// limit holds it back, half of that limit is enough. 0 asks for nothing.
    #[arg(long, env = "WHERRY_LEAST_MIB_PER_HOUR", default_value_t = 64, value_parser = value_parser!(u64).range(0..=1_048_576))]
    pub least_mib_per_hour: u64,
    /// Seconds that a receiver may take to start, and any one answer of it.
    #[arg(long, env = "WHERRY_RECEIVER_TIMEOUT_SECS", default_value_t = 20, value_parser = value_parser!(u64).range(1..=600))]
    pub receiver_timeout_secs: u64,
    /// Seconds without any answer of a receiver that still runs after which it is replaced. One whose process has ended
    /// is replaced at once.
    #[arg(long, env = "WHERRY_RECEIVER_SILENCE_SECS", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    pub receiver_silence_secs: u64,
    /// Receivers that a run may lose one after the other without progress; with one more it fails.
    #[arg(long, env = "WHERRY_RECEIVER_LOSSES", default_value_t = 3, value_parser = value_parser!(u32).range(0..=100))]
    pub receiver_losses: u32,
    /// Times that a run sends again what its receiver finds to be wrong on the target; after that it fails.
    #[arg(long, env = "WHERRY_CORRUPT_RESENDS", default_value_t = 2, value_parser = value_parser!(u32).range(0..=100))]
    pub corrupt_resends: u32,
    /// Seconds that a receiver has to flush and end by itself before it is killed.
    #[arg(long, env = "WHERRY_RECEIVER_PARK_SECS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=300))]
    pub receiver_park_secs: u64,
    /// MiB of memory that a receiver may allocate, and each program that it runs. Without it, 2048 and 1 for each 16
    /// GiB of its disks.
    #[arg(long, env = "WHERRY_RECEIVER_MEMORY_MIB", value_parser = value_parser!(u64).range(128..=1_048_576))]
    pub receiver_memory_mib: Option<u64>,
    /// MiB that receivers leave free on the file systems of --worker-dir and --image-store. Without it, a twentieth of
    /// each, at least 10 GiB, but at most a quarter.
    #[arg(long, env = "WHERRY_RESERVE_MIB", value_name = "MIB", value_parser = value_parser!(u64).range(0..=1 << 40))]
    pub reserve_mib: Option<u64>,
    /// Files and connections that a receiver may have open.
    #[arg(long, env = "WHERRY_RECEIVER_OPEN_FILES", default_value_t = 4096, value_parser = value_parser!(u64).range(64..=1_048_576))]
    pub receiver_open_files: u64,
    /// Bytes of memory that a receiver which crashes may leave in a core file. A core holds what was copied; 0 makes
    /// none.
    #[arg(long, env = "WHERRY_RECEIVER_CORE_BYTES", default_value_t = 0)]
    pub receiver_core_bytes: u64,
    /// Seconds that runs have to be handed over when the worker drains.
    #[arg(long, env = "WHERRY_DRAIN_SECS", default_value_t = 30, value_parser = value_parser!(u64).range(0..=3600))]
    pub drain_secs: u64,
    /// Conditions of readiness, shared by the roles of one process.
    #[arg(skip)]
    pub readiness: Readiness,
}

impl Config {
    pub(crate) fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.lease_ttl_secs)
    }

    pub(crate) fn lease_renewal(&self) -> Duration {
        Duration::from_secs(self.lease_renewal_secs)
    }

    pub(crate) fn lease_margin(&self) -> Duration {
        Duration::from_secs(self.lease_margin_secs)
    }

    pub(crate) fn receiver_timeout(&self) -> Duration {
        Duration::from_secs(self.receiver_timeout_secs)
    }

    pub(crate) fn receiver_silence(&self) -> Duration {
        Duration::from_secs(self.receiver_silence_secs)
    }

    pub(crate) fn receiver_limits(&self) -> Limits {
        Limits {
            memory_bytes: self.receiver_memory_mib.map(|mebibytes| mebibytes << 20),
            open_files: self.receiver_open_files,
            core_bytes: self.receiver_core_bytes,
        }
    }

    pub(crate) fn agent_patience(&self) -> Duration {
        Duration::from_secs(self.agent_patience_secs)
    }

    pub(crate) fn agent_park(&self) -> Duration {
        Duration::from_secs(self.agent_park_secs)
    }

    pub(crate) fn agent_still(&self) -> Duration {
        Duration::from_secs(self.agent_still_secs)
    }

    pub(crate) fn receiver_host(&self) -> String {
        self.receiver_host
            .clone()
            .unwrap_or_else(|| self.receiver_listen.to_string())
    }

    /// Checks that a lease is renewed at least once before the worker stops trusting it.
    pub(crate) fn check(&self) -> Result<(), crate::Error> {
        if self.lease_renewal_secs + self.lease_margin_secs >= self.lease_ttl_secs {
            return Err(crate::Error::LeaseTimes {
                ttl: self.lease_ttl_secs,
                renewal: self.lease_renewal_secs,
                margin: self.lease_margin_secs,
            });
        }
        Ok(())
    }
}
