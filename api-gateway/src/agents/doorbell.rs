//! Waking the connected agents when a gateway or worker, here or elsewhere, announces a change.

use std::convert::Infallible;

use bus::{Bus, BusConfig};
use futures::StreamExt as _;

use super::Error;
use super::watch::Watches;

/// Wakes the agents of one listener.
#[derive(Debug, Clone)]
pub struct Doorbell {
    watches: Watches,
}

impl Doorbell {
    pub(super) fn new(watches: Watches) -> Self {
        Self { watches }
    }

    /// Connects to NATS and wakes the agent of each source that is nudged, for as long as the connection lives. The
    /// caller starts it again when it fails: a gateway without NATS works, only later (`--agents-poll-secs`).
    ///
    /// # Errors
    /// [`Error::Bus`] and [`Error::Deaf`].
    pub async fn hear(self, config: BusConfig) -> Result<Infallible, Error> {
        let bus = Bus::connect(&config).await?;
        let mut nudges = bus.nudges().await?;
        while let Some(source_id) = nudges.next().await {
            self.watches.wake(&source_id);
        }
        Err(Error::Deaf)
    }
}
