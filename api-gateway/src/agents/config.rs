//! Settings of the agents' listener.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use service::door::{self, Door};

use crate::config::places;

/// Addresses that agents call, and bounds of their connections.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address that agents call. Port 0 takes a free one.
    #[arg(long, env = "WHERRY_AGENTS", default_value = "127.0.0.1:8701")]
    pub agents: SocketAddr,
    /// Names and addresses under which agents reach this gateway, for its certificate: repeat it or use commas.
    /// `localhost`, this machine's name and the listener's own address are always in it.
    #[arg(long, env = "WHERRY_AGENTS_NAME", value_delimiter = ',')]
    pub agents_name: Vec<String>,
    /// Seconds between two polls of the database for changed assignments of a connected agent: the longest delay until
    /// a lost nudge is noticed.
    #[arg(long, env = "WHERRY_AGENTS_POLL_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub agents_poll_secs: u64,
    /// Agents with a certificate that may be connected to this gateway at once.
    #[arg(long, env = "WHERRY_AGENTS_MAX", default_value_t = 10_000, value_parser = places)]
    pub agents_max: usize,
    /// Connections of one source. When it has that many, its oldest is closed for each new one.
    #[arg(long, env = "WHERRY_AGENTS_CONNECTIONS_PER_SOURCE", default_value_t = 4, value_parser = places)]
    pub agents_connections_per_source: usize,
    /// Connections without a certificate, of servers that register. When there are that many, the oldest is closed for
    /// each new one.
    #[arg(long, env = "WHERRY_AGENTS_STRANGERS", default_value_t = 1024, value_parser = places)]
    pub agents_strangers: usize,
    /// Those of them from one address: one of IPv4, or a /64 of IPv6.
    #[arg(long, env = "WHERRY_AGENTS_STRANGERS_PER_ADDRESS", default_value_t = 256, value_parser = places)]
    pub agents_strangers_per_address: usize,
    /// Seconds that a connection without a certificate lives, and that a TLS handshake takes at most.
    #[arg(long, env = "WHERRY_AGENTS_STRANGER_SECS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub agents_stranger_secs: u64,
    /// Registrations a second from one address; ten times as many may come at once.
    #[arg(
        long,
        env = "WHERRY_AGENTS_REGISTRATIONS_PER_SEC",
        default_value = "10"
    )]
    pub agents_registrations_per_sec: NonZeroU32,
}

impl Config {
    pub(super) fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.agents_poll_secs)
    }

    pub(super) fn stranger_limit(&self) -> Duration {
        Duration::from_secs(self.agents_stranger_secs)
    }

    pub(super) fn door(&self) -> Door {
        Door::new(
            "agents",
            door::Limits {
                strangers: self.agents_strangers,
                strangers_per_address: self.agents_strangers_per_address,
                known: self.agents_max,
                known_per_caller: self.agents_connections_per_source,
            },
        )
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        use clap::Parser as _;

        #[derive(clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            config: Config,
        }
        Arguments::parse_from(["agents"]).config
    }
}

/// Longest time of one call of an agent.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Interval of the pings to a silent connection, and the time within which the peer must answer one.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Calls that one connection may have open: a watch, a heartbeat, and room for the calls of later versions.
pub(super) const MAX_CALLS_PER_CONNECTION: u32 = 8;

/// Largest message of an agent in bytes: many times the size of an inventory with every disk and text at its longest.
pub(super) const MAX_MESSAGE_BYTES: usize = 256 * 1024;
