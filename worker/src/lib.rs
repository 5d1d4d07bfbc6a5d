//! The worker: claims jobs under a lease, provisions an instance for each, drives its run, delivers an image.
//!
//! - `role` is the process.
//! - `pull` receives commands, no more than there are slots for.
//! - `leases` renews the worker's leases, and reports a lost lease or a requested stop.
//! - `run` drives one run, a file for each phase.
//! - `shares` divides the host's bandwidth among the runs.
//! - `provider` creates and destroys instances.
//! - `stores` checks that instances and images can be written.
//! - `removal` releases the resources of deleted jobs and images.

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
mod stores;

pub use config::Config;
pub use error::Error;
pub use role::run;
