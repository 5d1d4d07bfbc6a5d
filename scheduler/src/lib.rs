//! The scheduler: starts, stops and expires jobs on time, fairly between tenants.
//!
//! The scheduler has no leader. Each of its tasks takes rows that no other process has taken (`for update skip locked`)
//! and changes them by guarded statements. So two schedulers do the work of one, and the work resumes sooner after
//! one of them dies.
//!
//! - `relay` publishes the outbox.
//! - `admission` gives slots to queued jobs.
//! - `timers` starts, expires and purges jobs when that is due.
//! - `sweep` removes leases that ran out.
//! - `reconcile` repeats requests that seem forgotten; with it, no single message matters.
//! - `figures` shows all of it.

mod admission;
mod config;
mod error;
mod figures;
mod reconcile;
mod relay;
mod role;
mod sweep;
mod timers;
mod wake;

pub use config::Config;
pub use error::Error;
pub use role::run;
