//! Receiving commands: a durable pull consumer that all workers share.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{Consumer, pull};
use domain::message::{Command, TraceHeaders};
use futures::StreamExt as _;

use crate::{Bus, BusError, envelope, streams};

/// Commands from the work queue, requested a few at a time.
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
    /// A message that this version can't read, and the reason.
    Undecodable(Letter, String),
}

/// A command that waits for its acknowledgement.
#[derive(Debug)]
pub struct Delivery {
    /// The command, which names a row to read.
    pub command: Command,
    /// Trace context of the cause.
    pub headers: TraceHeaders,
    /// Number of deliveries, including this one.
    pub deliveries: i64,
    letter: Letter,
}

/// A message, unchanged.
#[derive(Debug)]
pub struct Letter {
    /// Subject of the message.
    pub subject: String,
    /// Bytes of the message.
    pub payload: Vec<u8>,
    /// All headers of the message.
    pub headers: TraceHeaders,
    bus: Bus,
    message: async_nats::jetstream::Message,
}

impl Bus {
    /// Returns the commands of the work queue.
    pub fn commands(&self) -> Commands {
        Commands {
            bus: self.clone(),
            consumer: None,
        }
    }
}

impl Commands {
    /// Returns up to `most` commands. It waits for the first one up to `wait`, and may return none.
    ///
    /// # Errors
    /// NATS fails or is unavailable. The caller should call again: a missing consumer or stream is then created again.
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
            let failed =
                |error: &dyn std::fmt::Display| BusError::jetstream("give commands", error);
            // The request waits for one command only. The other commands are taken if they are available now. A dropped
            // request with answers on their way would hold those commands back until their acknowledgement is overdue.
            let first = consumer
                .batch()
                .max_messages(1)
                .expires(wait)
                .messages()
                .await;
            let mut received = Vec::new();
            let bus = &self.bus;
            drain(bus, first.map_err(|error| failed(&error))?, &mut received).await?;
            if !received.is_empty() && most > 1 {
                let others = consumer.fetch().max_messages(most - 1).messages().await;
                drain(bus, others.map_err(|error| failed(&error))?, &mut received).await?;
            }
            Ok(received)
        };
        let timeout = wait + self.bus.timeout;
        let doing = "give commands";
        tokio::time::timeout(timeout, work)
            .await
            .unwrap_or(Err(BusError::TimedOut { doing, timeout }))
    }
}

async fn open(bus: &Bus) -> Result<Consumer<pull::Config>, BusError> {
    bus.ensure_streams().await?;
    bus.bounded("make the workers' consumer", async {
        let failed = |error: &dyn std::fmt::Display| {
            BusError::jetstream("make the workers' consumer", error)
        };
        let stream = bus
            .jetstream
            .get_stream(streams::COMMANDS)
            .await
            .map_err(|error| failed(&error))?;
        stream
            .get_or_create_consumer(streams::WORKERS, streams::workers())
            .await
            .map_err(|error| failed(&error))
    })
    .await
}

async fn drain(
    bus: &Bus,
    mut batch: pull::Batch,
    received: &mut Vec<Received>,
) -> Result<(), BusError> {
    while let Some(message) = batch.next().await {
        received.push(read(
            bus,
            message.map_err(|error| BusError::jetstream("give commands", error))?,
        ));
    }
    Ok(())
}

fn read(bus: &Bus, message: async_nats::jetstream::Message) -> Received {
    let decoded = envelope::decode_command(&message.payload);
    let (headers, deliveries) = (
        envelope::trace(message.headers.as_ref()),
        message.info().map_or(1, |info| info.delivered),
    );
    let letter = Letter {
        subject: message.subject.to_string(),
        payload: message.payload.to_vec(),
        headers: envelope::all_headers(message.headers.as_ref()),
        bus: bus.clone(),
        message,
    };
    match decoded {
        Ok(command) => Received::Command(Delivery {
            command,
            headers,
            deliveries,
            letter,
        }),
        Err(error) => Received::Undecodable(letter, error.to_string()),
    }
}

impl Delivery {
    /// Reports that the command is finished, and waits until the queue has removed the command.
    ///
    /// # Errors
    /// NATS did not confirm; the command may come again.
    pub async fn acknowledge(&self) -> Result<(), BusError> {
        let message = &self.letter.message;
        message
            .double_ack()
            .await
            .map_err(|error| BusError::jetstream("take an acknowledgement", error))
    }

    /// Returns the command to the queue, which delivers it again after `delay`.
    ///
    /// # Errors
    /// NATS is unavailable; the command is delivered again when its acknowledgement is overdue.
    pub async fn later(&self, delay: Duration) -> Result<(), BusError> {
        let message = &self.letter.message;
        message
            .ack_with(AckKind::Nak(Some(delay)))
            .await
            .map_err(|error| BusError::jetstream("take back a command", error))
    }

    /// Reports that the command is still in progress, so that no other worker receives it for another while. It must be
    /// called more often than every [`Delivery::PATIENCE`].
    ///
    /// # Errors
    /// NATS is unavailable; another worker may receive the command too.
    pub async fn still_working(&self) -> Result<(), BusError> {
        let message = &self.letter.message;
        message
            .ack_with(AckKind::Progress)
            .await
            .map_err(|error| BusError::jetstream("take a sign of life", error))
    }

    /// Longest time without a report before the command is delivered to another worker.
    pub const PATIENCE: Duration = streams::ACK_WAIT;

    /// Returns the message itself, for the dead letters.
    pub fn letter(&self) -> &Letter {
        &self.letter
    }
}

impl Letter {
    /// Removes the message from the queue for good, and puts it into the stream of dead letters with the reason.
    ///
    /// # Errors
    /// NATS is unavailable or has no room for the message, which is then delivered again.
    pub async fn bury(&self, reason: &str) -> Result<(), BusError> {
        self.bus
            .keep_dead(&self.subject, &self.payload, &self.headers, reason)
            .await?;
        self.message
            .ack_with(AckKind::Term)
            .await
            .map_err(|error| BusError::jetstream("discard a message", error))
    }
}
