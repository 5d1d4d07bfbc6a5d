//! The worker: takes jobs under a lease, provisions an instance for each, drives its run, delivers an image.
//!
//! - `role` is the process.
//! - `pull` takes commands, no more than there are slots for.
//! - `leases` keeps what it holds alive, and says when it is lost or asked to stop.
//! - `run` drives one run, a file for each phase.
//! - `shares` divides the host's bandwidth among the runs.
//! - `provider` makes and unmakes instances.
//! - `removal` releases what deleted jobs and images held.

mod config;
mod error;
mod leases;
mod provider;
mod pull;
mod receiver_client;
mod removal;
mod role;
mod run;
mod shares;

pub use config::Config;
pub use error::Error;
pub use role::run;
