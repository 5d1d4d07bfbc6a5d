//! NATS: the messages between processes.
//!
//! Everything here is a hint. A message may be lost, duplicated, late or out of order. Its receiver reads the row that
//! the message names, and the scheduler's reconciler repeats messages that seem to be lost. So publishing needs no more
//! care than a time-out, and a stream that was wiped is created again.

mod commands;
mod connection;
mod envelope;
mod streams;

pub use commands::{Commands, Delivery, Letter, Received};
pub use connection::{Bus, BusConfig, BusError};
pub use streams::{COMMANDS, DEAD_LETTERS, EVENTS};
