//! Replication jobs. [`transition`] is the only writer of a job's state.

pub mod create;
pub mod describe;
pub mod explain;
pub mod modify;
pub mod start;
pub mod transition;

pub use transition::{Change, Guard, Transitioned};

/// Notified when a job was queued or a slot became free: admission has something to do.
pub const QUEUE_CHANNEL: &str = "wherry_queue";

/// Notified when a timer was set: the scheduler may have to wake earlier.
pub const TIMER_CHANNEL: &str = "wherry_timer";
