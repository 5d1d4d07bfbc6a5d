//! The relay: from the outbox to NATS, oldest first.
//!
//! The rows of a batch stay locked while the batch is published. The lock keeps two relays apart. No other
//! transaction of Wherry waits for another system. The bus bounds the wait, and no other transaction ever waits for
//! these rows.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use telemetry::Metric;
use uuid::Uuid;

use crate::Error;
use crate::role::Scheduler;
use crate::wake::Wake;

/// Publications under way at once.
const IN_FLIGHT: usize = 32;

/// Pause after NATS has refused a message or was unavailable.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(scheduler: Arc<Scheduler>, wake: Wake) -> Result<(), Error> {
    loop {
        send_again(&scheduler).await?;
        let batch = scheduler
            .store
            .take_messages(scheduler.config.relay_batch)
            .await?;
        if batch.is_empty() {
            drop(batch);
            wake.wait(scheduler.config.poll()).await;
            continue;
        }
        for row in &batch.unreadable {
            tracing::error!(
                message_id = %row.id,
                reason = row.reason,
                "a message of the outbox can't be read and is kept as a dead letter"
            );
        }
        count("unreadable", batch.unreadable.len());
        let publications = futures::stream::iter(batch.messages.clone()).map(|waiting| {
            let bus = scheduler.bus.clone();
            async move {
                (
                    waiting.id,
                    bus.publish(&waiting.message, waiting.id, &waiting.headers)
                        .await,
                )
            }
        });
        let outcomes: Vec<(Uuid, Result<(), bus::BusError>)> =
            publications.buffered(IN_FLIGHT).collect().await;
        let published: Vec<Uuid> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(id, _)| *id)
            .collect();
        let failed = outcomes.len() - published.len();
        count("published", published.len());
        count("failed", failed);
        batch.published(&published).await?;
        if let Some((_, Err(error))) = outcomes.iter().find(|(_, outcome)| outcome.is_err()) {
            tracing::warn!(
                failed,
                error = error as &dyn std::error::Error,
                "messages wait in the outbox"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sends the dead letters that an operator wants sent again.
async fn send_again(scheduler: &Scheduler) -> Result<(), Error> {
    while let Some(retried) = scheduler.store.take_retried_letter().await? {
        let letter = &retried.letter;
        let sent = scheduler
            .bus
            .send_again(&letter.subject, &letter.payload, &letter.headers)
            .await;
        match sent {
            Ok(()) => {
                tracing::info!(
                    id = letter.id,
                    subject = letter.subject,
                    "a dead letter is on its way again"
                );
                retried.sent().await?;
            }
            Err(error) => {
                tracing::warn!(
                    id = letter.id,
                    error = &error as &dyn std::error::Error,
                    "a dead letter can't be sent again now"
                );
                return Ok(());
            }
        }
    }
    Ok(())
}

fn count(outcome: &'static str, messages: usize) {
    telemetry::counter(Metric::RelayPublished, &[("outcome", outcome)]).increment(messages as u64);
}
