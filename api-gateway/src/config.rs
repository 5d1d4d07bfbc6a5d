//! Settings of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use service::Readiness;
use service::door::{self, Door};
use store::SealKey;

use crate::agents;
use crate::listener::{ConnectionLimits, Patience};

/// Settings of a gateway. Each can be given as a flag or in the environment.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address of the SMC API. Port 0 takes a free one.
    #[arg(long, env = "WHERRY_API", default_value = "127.0.0.1:8700")]
    pub api: SocketAddr,
    /// Address of the SMC API over HTTPS; none without it.
    #[arg(long, env = "WHERRY_API_TLS", requires_all = ["api_certificate", "api_key"])]
    pub api_tls: Option<SocketAddr>,
    /// PEM file with the certificate chain of --api-tls. It is read again when it changes.
    #[arg(long, env = "WHERRY_API_CERTIFICATE", value_name = "FILE")]
    pub api_certificate: Option<PathBuf>,
    /// PEM file with the key of --api-certificate.
    #[arg(long, env = "WHERRY_API_KEY", value_name = "FILE")]
    pub api_key: Option<PathBuf>,
    /// Refuses calls that did not come over TLS, to --api-tls or to a trusted proxy.
    #[arg(long, env = "WHERRY_API_REQUIRE_TLS")]
    pub api_require_tls: bool,
    /// Addresses of reverse proxies, as CIDR: only their X-Forwarded-For and X-Forwarded-Proto headers count. They must
    /// leave Host, Accept and User-Agent as they are, since these are signed.
    #[arg(
        long,
        env = "WHERRY_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Path of the Unix domain socket for `wherry admin`; none without it. Anyone who may open it is the operator: its
    /// mode is 0600, and its directory must not be writable for others.
    #[arg(long, env = "WHERRY_ADMIN_SOCKET", value_name = "PATH")]
    pub admin: Option<PathBuf>,
    /// Days that the audit is kept.
    #[arg(long, env = "WHERRY_AUDIT_DAYS", default_value_t = 400, value_parser = clap::value_parser!(i32).range(1..=36_500))]
    pub audit_days: i32,
    /// Address of /healthz, /readyz and /metrics; none without it.
    #[arg(long, env = "WHERRY_HEALTH")]
    pub health: Option<SocketAddr>,
    /// The agents' listener.
    #[command(flatten)]
    pub agents: agents::Config,
    /// Postgres, as postgres://user:password@host:port/database.
    #[arg(long, env = "WHERRY_DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// Connections to Postgres at most.
    #[arg(long, env = "WHERRY_DATABASE_CONNECTIONS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
    /// NATS, as nats://user:password@host:port.
    #[arg(long, env = "WHERRY_NATS_URL", hide_env_values = true)]
    pub nats_url: SecretString,
    /// Key of secrets at rest: 64 hexadecimal digits, the same for every process of a deployment.
    #[arg(long, env = "WHERRY_SEAL_KEY", hide_env_values = true, value_parser = SealKey::from_hex)]
    pub seal_key: SealKey,
    /// The region that this service is, `RegionId` on the wire.
    #[arg(long, env = "WHERRY_REGION", default_value = "cn-wherry")]
    pub region: String,
    /// Directory of the image store, for DownloadImage; without it that operation is refused.
    #[arg(long, env = "WHERRY_IMAGE_STORE")]
    pub image_store: Option<PathBuf>,
    /// Largest system disk that a job may ask for, in GiB. SMC documents 500; its newer versions accept 2048.
    #[arg(long, env = "WHERRY_MAX_SYSTEM_DISK_GIB", default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=2048))]
    pub max_system_disk_gib: u32,
    /// Milliseconds from the head of a request to its answer at most; downloads may take longer. JavaScript clients
    /// give up after 3000.
    #[arg(long, env = "WHERRY_API_TIMEOUT_MS", default_value_t = 2500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub api_timeout_ms: u64,
    /// Seconds that a connection may stay without a request before it is closed.
    #[arg(long, env = "WHERRY_API_IDLE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_idle_secs: u64,
    /// Connections of API clients at once: known callers, whose signature was valid, and strangers together.
    #[arg(long, env = "WHERRY_API_CONNECTIONS", default_value_t = 4096, value_parser = places)]
    pub api_connections: usize,
    /// Those of them that strangers may have. When they have that many, the oldest is closed for each new one.
    #[arg(long, env = "WHERRY_API_STRANGERS", default_value_t = 1024, value_parser = places)]
    pub api_strangers: usize,
    /// Connections of strangers from one address: one of IPv4, or a /64 of IPv6. Trusted proxies are not counted.
    #[arg(long, env = "WHERRY_API_STRANGERS_PER_ADDRESS", default_value_t = 128, value_parser = places)]
    pub api_strangers_per_address: usize,
    /// Connections of one account. When it has that many, its oldest is closed for each new one.
    #[arg(long, env = "WHERRY_API_CONNECTIONS_PER_TENANT", default_value_t = 1024, value_parser = places)]
    pub api_connections_per_tenant: usize,
    /// Seconds from a connection's beginning to its first byte.
    #[arg(long, env = "WHERRY_API_FIRST_BYTE_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_first_byte_secs: u64,
    /// Seconds from a connection's beginning to the end of its TLS handshake.
    #[arg(long, env = "WHERRY_API_HANDSHAKE_SECS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_handshake_secs: u64,
    /// Seconds from a connection's beginning to the end of its first request's head.
    #[arg(long, env = "WHERRY_API_FIRST_REQUEST_SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_first_request_secs: u64,
    /// Least mean rate at which a client must read a download, in bytes a second, over --api-least-rate-secs. A slower
    /// connection is closed.
    #[arg(long, env = "WHERRY_API_LEAST_RATE", default_value_t = 16 * 1024)]
    pub api_least_rate: u64,
    /// Seconds over which the rate of a download is measured.
    #[arg(long, env = "WHERRY_API_LEAST_RATE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_least_rate_secs: u64,
    /// Bytes of a request's body at most.
    #[arg(long, env = "WHERRY_API_BODY_BYTES", default_value_t = 64 * 1024)]
    pub api_body_bytes: usize,
    /// Parameters of a call at most.
    #[arg(long, env = "WHERRY_API_PARAMETERS", default_value_t = 500)]
    pub api_parameters: usize,
    /// Seconds that calls under way have to end when the gateway drains.
    #[arg(long, env = "WHERRY_DRAIN_SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub drain_secs: u64,
    /// Conditions of readiness, shared by the roles of one process.
    #[arg(skip)]
    pub readiness: Readiness,
}

/// Parses the number of places at a listener: at least one.
pub(crate) fn places(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be 1 or more".to_owned()),
        Ok(places) => Ok(places),
        Err(error) => Err(format!("{error}")),
    }
}

impl Config {
    /// Returns the places of API clients.
    pub(crate) fn door(&self) -> Door {
        let strangers = self.api_strangers.min(self.api_connections);
        Door::new(
            "api",
            door::Limits {
                strangers,
                strangers_per_address: self.api_strangers_per_address,
                known: self.api_connections - strangers,
                known_per_caller: self.api_connections_per_tenant,
            },
        )
    }

    /// Returns the bounds of one connection of an API client.
    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            first_byte: Duration::from_secs(self.api_first_byte_secs),
            handshake: Duration::from_secs(self.api_handshake_secs),
            patience: Patience {
                first_request: Duration::from_secs(self.api_first_request_secs),
                idle: Duration::from_secs(self.api_idle_secs),
                least_rate: self.api_least_rate,
                rate_window: Duration::from_secs(self.api_least_rate_secs),
            },
        }
    }

    /// Returns the connections to Postgres for keys and nonces, agents and upkeep: a quarter.
    pub(crate) fn connections_for_all(&self) -> u32 {
        self.database_connections.div_ceil(4)
    }

    /// Returns the connections to Postgres for calls: the rest.
    pub(crate) fn connections_for_tenants(&self) -> u32 {
        (self.database_connections - self.connections_for_all()).max(1)
    }

    /// Returns the longest time of a call.
    pub(crate) fn call_limit(&self) -> Duration {
        Duration::from_millis(self.api_timeout_ms)
    }

    // A call that waits in vain must be answered within this limit, while its caller still listens (SMC API §3.5). So
    // each wait of a call is a part of the limit.

    /// Returns the longest wait of a call for a connection to Postgres.
    pub(crate) fn database_wait(&self) -> Duration {
        self.call_limit() * 4 / 5
    }

    /// Returns the longest wait of a statement for a row that another one holds.
    pub(crate) fn lock_timeout(&self) -> Duration {
        self.call_limit() * 2 / 5
    }

    /// Returns the longest run of one statement of a call.
    pub(crate) fn call_statement_timeout(&self) -> Duration {
        self.call_limit() * 4 / 5
    }

    pub(crate) fn drain_deadline(&self) -> Duration {
        Duration::from_secs(self.drain_secs)
    }
}

/// Most access keys that are cached after a look-up.
pub(crate) const CACHED_KEYS: usize = 10_000;

/// Time for which a key is cached: a key that was switched off signs for at most that long.
pub(crate) const KEY_CACHED_FOR: Duration = Duration::from_secs(5);

/// Longest run of any other statement: of agents, of operators, of upkeep.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn a_wait_in_vain_is_answered_while_javascript_clients_still_listen() {
        let key = "--seal-key=".to_owned() + &"0".repeat(64);
        let arguments = ["gateway", "--database-url=x", "--nats-url=x", key.as_str()];
        let config = Arguments::parse_from(arguments).config;
        assert!(config.call_limit() < Duration::from_secs(3));
        for wait in [
            config.database_wait(),
            config.lock_timeout(),
            config.call_statement_timeout(),
        ] {
            assert!(wait < config.call_limit(), "{wait:?}");
        }
    }
}
