//! Taking commands: a durable pull consumer that all workers share.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{Consumer, pull};
use domain::message::{Command, TraceHeaders};
use futures::StreamExt as _;

use crate::{Bus, BusError, envelope, streams};

/// Commands from the work queue, asked for a few at a time.
#[derive(Debug)]
pub struct Commands {
    bus: Bus,
    consumer: Option<Consumer<pull::Config>>,
}

/// A message from the queue.
#[derive(Debug)]
pub enum Received {
    /// A command.
    Command(Delivery),
    /// Something that this version can't read.
    Undecodable(Undecodable),
}

/// A command that waits for its acknowledgement.
#[derive(Debug)]
pub struct Delivery {
    /// What to look at.
    pub command: Command,
    /// Trace context of what caused it.
    pub headers: TraceHeaders,
    /// How often it was given out, this time included.
    pub deliveries: i64,
    message: async_nats::jetstream::Message,
}

/// A message that can't be read; it belongs with the dead letters.
#[derive(Debug)]
pub struct Undecodable {
    /// Where it came from.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Why it can't be read.
    pub reason: String,
    message: async_nats::jetstream::Message,
}

impl Bus {
    /// The work queue.
    pub fn commands(&self) -> Commands {
        Commands { bus: self.clone(), consumer: None }
    }
}

impl Commands {
    /// Up to `most` commands; waits for the first up to `wait`, and may answer with none.
    ///
    /// # Errors
    /// NATS fails or is away. Call again: a consumer or stream that is gone is made anew then.
    pub async fn next(&mut self, most: usize, wait: Duration) -> Result<Vec<Received>, BusError> {
        let fetched = self.fetch(most, wait).await;
        if fetched.is_err() {
            self.consumer = None;
        }
        fetched
    }

    async fn fetch(&mut self, most: usize, wait: Duration) -> Result<Vec<Received>, BusError> {
        let consumer = match &self.consumer {
            Some(consumer) => consumer,
            None => self.consumer.insert(open(&self.bus).await?),
        };
        let work = async {
            let failed = |error: &dyn std::fmt::Display| BusError::jetstream("give commands", error);
            // One is waited for. The others are taken only if they are there: a request that is dropped with answers on their way would
            // hold those back until their acknowledgement's time is over.
            let first = consumer.batch().max_messages(1).expires(wait).messages().await;
            let mut received = Vec::new();
            drain(first.map_err(|error| failed(&error))?, &mut received).await?;
            if !received.is_empty() && most > 1 {
                let others = consumer.fetch().max_messages(most - 1).messages().await;
                drain(others.map_err(|error| failed(&error))?, &mut received).await?;
            }
            Ok(received)
        };
        let timeout = wait + self.bus.timeout;
        let doing = "give commands";
        tokio::time::timeout(timeout, work).await.unwrap_or(Err(BusError::TimedOut { doing, timeout }))
    }
}

async fn open(bus: &Bus) -> Result<Consumer<pull::Config>, BusError> {
    bus.ensure_streams().await?;
    bus.bounded("make the workers' consumer", async {
        let failed = |error: &dyn std::fmt::Display| BusError::jetstream("make the workers' consumer", error);
        let stream = bus.jetstream.get_stream(streams::COMMANDS).await.map_err(|error| failed(&error))?;
        stream.get_or_create_consumer(streams::WORKERS, streams::workers()).await.map_err(|error| failed(&error))
    })
    .await
}

async fn drain(mut batch: pull::Batch, received: &mut Vec<Received>) -> Result<(), BusError> {
    while let Some(message) = batch.next().await {
        received.push(read(message.map_err(|error| BusError::jetstream("give commands", error))?));
    }
    Ok(())
}

fn read(message: async_nats::jetstream::Message) -> Received {
    match envelope::decode_command(&message.payload) {
        Ok(command) => Received::Command(Delivery {
            command,
            headers: envelope::trace(message.headers.as_ref()),
            deliveries: message.info().map_or(1, |info| info.delivered),
            message,
        }),
        Err(error) => Received::Undecodable(Undecodable {
            subject: message.subject.to_string(),
            payload: message.payload.to_vec(),
            reason: error.to_string(),
            message,
        }),
    }
}

impl Delivery {
    /// Says that the command is dealt with, and waits until the queue has forgotten it.
    ///
    /// # Errors
    /// NATS did not confirm; the command may come again.
    pub async fn acknowledge(&self) -> Result<(), BusError> {
        self.message
            .double_ack()
            .await
            .map_err(|error| BusError::jetstream("take an acknowledgement", error))
    }

    /// Gives the command back, to be given out again after `delay`.
    ///
    /// # Errors
    /// NATS is away; the command comes again after the acknowledgement's time.
    pub async fn later(&self, delay: Duration) -> Result<(), BusError> {
        self.message
            .ack_with(AckKind::Nak(Some(delay)))
            .await
            .map_err(|error| BusError::jetstream("take back a command", error))
    }
}

impl Undecodable {
    /// Takes it out of the queue for good.
    ///
    /// # Errors
    /// NATS is away; it comes again.
    pub async fn discard(&self) -> Result<(), BusError> {
        self.message
            .ack_with(AckKind::Term)
            .await
            .map_err(|error| BusError::jetstream("discard a message", error))
    }
}
