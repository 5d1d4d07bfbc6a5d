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

/// Schedule of a job that delivers repeatedly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Increments {
    /// Hours from one start to the next, 1–168.
    pub frequency_hours: i32,
    /// Number of images that are kept, 1–10; the oldest are removed first.
    pub images_to_keep: i32,
}

/// Channel of notifications that a job was queued or a slot became free. Admission then has work to do.
pub const QUEUE_CHANNEL: &str = "wherry_queue";

/// Channel of notifications that a timer was set. The scheduler may then have to wake earlier.
pub const TIMER_CHANNEL: &str = "wherry_timer";
