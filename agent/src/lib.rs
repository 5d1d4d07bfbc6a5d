//! The agent on a source: finds its disks, registers the server, says that it is alive, and sends the disks to the receiver of
//! each run.
//!
//! It only ever calls out. It reads disks and writes nothing but its state directory. What it is asked to do arrives as the list
//! of current assignments in the answer to each heartbeat; what is not in the list is dropped. So a restarted agent, a lost
//! nudge and a gateway that was away all mend with the next heartbeat.

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
