//! The agent against a real gateway's listener and a real Postgres, over real TLS.

mod assignment;
mod clones;
mod deployment;
mod heartbeat;
mod rates;
mod registration;
