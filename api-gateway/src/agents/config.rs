//! Settings of the agents' listener.

use std::net::SocketAddr;
use std::time::Duration;

/// Where agents call, and how many may.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address that agents call. Port 0 takes a free one.
    #[arg(long, env = "WHERRY_AGENTS", default_value = "127.0.0.1:8701")]
    pub agents: SocketAddr,
    /// Names and addresses under which agents reach this gateway, for its certificate: repeat it or use commas. `localhost`, this
    /// machine's name and the listener's own address are always in it.
    #[arg(long, env = "WHERRY_AGENTS_NAME", value_delimiter = ',')]
    pub agents_name: Vec<String>,
    /// Seconds between two looks into the database for changed assignments of a connected agent: how late a lost nudge is noticed.
    #[arg(long, env = "WHERRY_AGENTS_POLL_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub agents_poll_secs: u64,
    /// Agents that may be connected to this gateway at once; more of them wait until one goes.
    #[arg(long, env = "WHERRY_AGENTS_MAX", default_value_t = 10_000)]
    pub agents_max: usize,
}

impl Config {
    pub(super) fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.agents_poll_secs)
    }
}

/// Longest time of one call of an agent, and of its TLS handshake.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a silent connection is asked whether it still stands, and how long it may take to say so.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Calls that one connection may have open: a watch, a heartbeat, and room for what later versions add.
pub(super) const MAX_CALLS_PER_CONNECTION: u32 = 8;

/// Largest message of an agent in bytes: an inventory with every disk and text at its longest fits many times.
pub(super) const MAX_MESSAGE_BYTES: usize = 256 * 1024;
