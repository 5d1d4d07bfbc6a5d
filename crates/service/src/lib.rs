//! The skeleton of a process: how it binds, shows its health, runs its tasks, drains and ends.
//!
//! Each role follows the same line: config, telemetry, connect, bind, ready, run, drain, flush, exit code.

mod bind;
mod dependency;
mod exit_code;
mod shutdown;
mod signals;

pub mod door;
pub mod health;
pub mod local_socket;
pub mod task;

pub use bind::{BindError, bind};
pub use dependency::{Dependency, show_connections};
pub use exit_code::ExitCode;
pub use health::Readiness;
pub use shutdown::Shutdown;
pub use signals::handle_signals;
pub use task::{Backoff, OnCancel, OnError, Policy, TaskFailure, TaskGroup};
