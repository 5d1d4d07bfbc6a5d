//! A replication job's life: its states, the events that move it, and the table of both.
//!
//! A job's row keeps three things apart. The *intent* is the last request of the API. The *observed* values are the
//! last report of the lease holder, with its epoch. The *state* is moved by [`transition::next`] alone.

pub mod explain;
mod intent;
pub mod progress;
mod state;
pub mod transition;

pub use intent::Intent;
pub use state::{BusinessStatus, State, Status, UnknownState};
pub use transition::{Event, Outcome, Reason};
