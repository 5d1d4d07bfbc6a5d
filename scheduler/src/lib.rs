//! The scheduler: starts, stops and expires jobs on time, fairly between tenants.
//!
//! It has no leader. Each of its tasks takes what nobody else has taken (`for update skip locked`) and changes it by guarded statements, so two
//! schedulers do what one does, only sooner after one of them dies.
//!
//! - `relay` publishes the outbox.
//! - `admission` gives slots to queued jobs.
//! - `timers` starts, expires and purges jobs when that is due.
//! - `sweep` takes away leases that ran out.
//! - `reconcile` asks again for what seems forgotten; with it, no message matters.
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
