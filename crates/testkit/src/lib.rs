//! Databases, servers and whole clusters for tests: the real programs, never a mock.

pub mod cluster;
pub mod expressions;
pub mod faults;
pub mod program;
pub mod traces;
pub mod wait;

mod database;
mod nats;
mod template;

pub use database::{Database, postgres};
pub use nats::{TestNats, nats};
