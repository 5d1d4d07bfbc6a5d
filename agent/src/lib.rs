//! The agent on a source. It finds the source's disks, registers the server, reports that it is alive, and sends the
//! disks to the receiver of each run.
//!
//! The agent only makes outgoing calls. It reads disks and writes only its state directory. Its orders arrive as the
//! list of current assignments in the answer to each heartbeat; an assignment that is not in the list is dropped. So
//! the next heartbeat repairs a restart of the agent, a lost nudge, or an outage of the gateway.

mod activation;
mod assignment;
mod config;
mod error;
mod gateway;
mod instance;
mod inventory;
mod role;
mod state_dir;

pub use activation::{ActivationCode, InvalidActivationCode};
pub use config::Config;
pub use error::Error;
pub use role::run;
