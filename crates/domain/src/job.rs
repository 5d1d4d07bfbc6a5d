//! A replication job's life: its states, the events that move it, and the table of both.
//!
//! Three things stay apart on a job's row: the *intent* (what the API asked for), what was *observed* (what the lease holder last
//! reported, with its epoch) and the *state*, which only [`transition::next`] moves.

pub mod explain;
mod intent;
pub mod progress;
mod state;
pub mod transition;

pub use intent::Intent;
pub use state::{BusinessStatus, State, Status, UnknownState};
pub use transition::{Event, Outcome, Reason};
