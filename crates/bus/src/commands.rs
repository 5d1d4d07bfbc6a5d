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
    /// Something that this version can't read, and why.
    Undecodable(Letter, String),
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
    letter: Letter,
}

/// A message as it came.
#[derive(Debug)]
pub struct Letter {
    /// Where it came from.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its headers, all of them.
    pub headers: TraceHeaders,
    bus: Bus,
    message: async_nats::jetstream::Message,
}

impl Bus {
    /// The work queue.
    pub fn commands(&self) -> Commands {
        Commands {
            bus: self.clone(),
            consumer: None,
        }
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
            let failed =
                |error: &dyn std::fmt::Display| BusError::jetstream("give commands", error);
            // One is waited for. The others are taken only if they are there: a request that is dropped with answers on their way would
            // hold those back until their acknowledgement's time is over.
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
    /// Says that the command is dealt with, and waits until the queue has forgotten it.
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

    /// Gives the command back, to be given out again after `delay`.
    ///
    /// # Errors
    /// NATS is away; the command comes again after the acknowledgement's time.
    pub async fn later(&self, delay: Duration) -> Result<(), BusError> {
        let message = &self.letter.message;
        message
            .ack_with(AckKind::Nak(Some(delay)))
            .await
            .map_err(|error| BusError::jetstream("take back a command", error))
    }

    /// Says that the command is still being done: nobody else is given it for another while. To be said more often than every
    /// [`Delivery::PATIENCE`].
    ///
    /// # Errors
    /// NATS is away; another worker may be given the command too.
    pub async fn still_working(&self) -> Result<(), BusError> {
        let message = &self.letter.message;
        message
            .ack_with(AckKind::Progress)
            .await
            .map_err(|error| BusError::jetstream("take a sign of life", error))
    }

    /// How long a command may be worked at without a word before it is given to another worker.
    pub const PATIENCE: Duration = streams::ACK_WAIT;

    /// The message itself, for the dead letters.
    pub fn letter(&self) -> &Letter {
        &self.letter
    }
}

impl Letter {
    /// Takes it out of the queue for good, and puts it into the stream of dead letters with the reason.
    ///
    /// # Errors
    /// NATS is away, or has no room for it: it comes again.
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
