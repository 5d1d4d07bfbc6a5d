//! Replication jobs. [`transition`] is the only writer of a job's state.

pub mod create;
pub mod describe;
pub mod explain;
pub mod increments;
pub mod modify;
pub mod runs;
pub mod start;
pub mod transition;

pub use transition::{Change, Guard, Transitioned};

/// How a job delivers again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Increments {
    /// Hours from one start to the next, 1–168.
    pub frequency_hours: i32,
    /// Images that are kept, 1–10; the oldest go.
    pub images_to_keep: i32,
}

/// Notified when a job was queued or a slot became free: admission has something to do.
pub const QUEUE_CHANNEL: &str = "wherry_queue";

/// Notified when a timer was set: the scheduler may have to wake earlier.
pub const TIMER_CHANNEL: &str = "wherry_timer";
