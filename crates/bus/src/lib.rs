//! NATS: what processes tell each other.
//!
//! Everything here is a hint. A message may be lost, come twice, late or out of order; whoever gets one reads the row that it names, and the
//! scheduler's reconciler sends again what seems to be lost. So publishing needs no more care than a time-out, and a stream
//! that somebody wiped is simply made again.

mod commands;
mod connection;
mod envelope;
mod streams;

pub use commands::{Commands, Delivery, Letter, Received};
pub use connection::{Bus, BusConfig, BusError};
pub use streams::{COMMANDS, DEAD_LETTERS, EVENTS};
