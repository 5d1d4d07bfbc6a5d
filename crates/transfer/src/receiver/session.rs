//! One sender's connection: who it is, what it sends, and what it is told.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Shared;
use super::disks::Disks;
use crate::control;
use crate::protocol::{
    Codec, FRAME_BYTES, Frame, OfferedDisk, Present, ToReceiver, ToSender, VERSION,
};
use crate::{CHUNK_BYTES, Ticket, TransferError};

/// How long a sender may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// Frames between a stream and the thread that writes them.
const QUEUE: usize = 4;

/// Takes connections until the endpoint is closed. A newer one of the same epoch replaces the older: the agent's process was restarted.
pub(super) async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut current: Option<tokio::task::AbortHandle> = None;
    while let Some(incoming) = endpoint.accept().await {
        let shared = Arc::clone(&shared);
        let before = current.take();
        let task = tokio::spawn(async move {
            match serve(incoming, &shared, before).await {
                Ok(()) => {}
                Err(error) => tracing::info!(%error, "a sender's connection ended"),
            }
            shared.status.send_modify(|status| status.connected = false);
        });
        current = Some(task.abort_handle());
    }
}

async fn serve(
    incoming: Incoming,
    shared: &Arc<Shared>,
    before: Option<tokio::task::AbortHandle>,
) -> Result<(), TransferError> {
    let address = incoming.remote_address().to_string();
    let lost = |error: &dyn std::fmt::Display| TransferError::Connection {
        address: address.clone(),
        message: error.to_string(),
    };
    let connection = incoming.await.map_err(|error| lost(&error))?;
    let (mut to_sender, mut from_sender) =
        tokio::time::timeout(HELLO_TIMEOUT, connection.accept_bi())
            .await
            .map_err(|_| lost(&"it does not say who it is"))?
            .map_err(|error| lost(&error))?;
    let outcome = match welcome(shared, &address, &mut to_sender, &mut from_sender).await {
        Ok(disks) => {
            if let Some(before) = before {
                before.abort();
            }
            shared.status.send_modify(|status| status.connected = true);
            tokio::select! {
                received = receive(shared, &disks, &connection, &mut to_sender, &mut from_sender, &address) => received,
                () = disks.cancel.cancelled() => Err(over(shared, &disks)),
            }
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        if !error.is_retryable() {
            shared
                .status
                .send_modify(|status| status.failure = Some(error.failure()));
        }
        let _gone = control::write(&mut to_sender, &ToSender::Refused(error.to_remote())).await;
    }
    let _gone = to_sender.finish();
    // The last word must arrive before the connection goes.
    let _gone = tokio::time::timeout(Duration::from_secs(5), to_sender.stopped()).await;
    outcome
}

/// The admission ended under the sender: a newer owner, a halt, or a flush that failed.
fn over(shared: &Shared, disks: &Disks) -> TransferError {
    match &shared.status.borrow().failure {
        Some(failure) => TransferError::Remote(crate::error::RemoteFailure {
            code: failure.code,
            message: failure.message.clone(),
            retryable: false,
        }),
        None => TransferError::Fenced {
            epoch: disks.admission.epoch,
        },
    }
}

/// Hello and Welcome.
async fn welcome(
    shared: &Shared,
    address: &str,
    to_sender: &mut SendStream,
    from_sender: &mut RecvStream,
) -> Result<Arc<Disks>, TransferError> {
    let hello = tokio::time::timeout(HELLO_TIMEOUT, control::read(from_sender)).await;
    let hello = hello.map_err(|_| TransferError::Protocol("no Hello came".to_owned()))?;
    let ToReceiver::Hello {
        version,
        ticket,
        disks: offered,
    } = hello.map_err(|error| error.at(address))?
    else {
        return Err(TransferError::Protocol(
            "the sender begins with something else than Hello".to_owned(),
        ));
    };
    if version != VERSION {
        return Err(TransferError::Version {
            ours: VERSION,
            theirs: version,
        });
    }
    let disks = shared
        .admitted()
        .ok_or_else(|| TransferError::Ticket("nobody is admitted yet".to_owned()))?;
    check_ticket(&ticket, &disks)?;
    check_offer(&offered, &disks)?;
    let present = offered
        .iter()
        .map(|offer| {
            let durable = disks
                .durable(offer.index)
                .expect("the offer was checked against the disks");
            Present::of(&durable)
        })
        .collect();
    let answer = ToSender::Welcome {
        version: VERSION,
        chunk_bytes: CHUNK_BYTES,
        disks: present,
    };
    let written = control::write(to_sender, &answer).await;
    written.map_err(|error| TransferError::Connection {
        address: address.to_owned(),
        message: error.to_string(),
    })?;
    Ok(disks)
}

fn check_ticket(bytes: &[u8], disks: &Disks) -> Result<(), TransferError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let admission = &disks.admission;
    let ticket = Ticket::verify(bytes, &admission.secret, now)
        .map_err(|error| TransferError::Ticket(error.to_string()))?;
    if ticket.epoch != admission.epoch {
        return Err(TransferError::Fenced {
            epoch: ticket.epoch,
        });
    }
    if ticket.job_id != admission.job_id || ticket.run != admission.run {
        return Err(TransferError::Ticket("it names another run".to_owned()));
    }
    Ok(())
}

fn check_offer(offered: &[OfferedDisk], disks: &Disks) -> Result<(), TransferError> {
    let expected = &disks.admission.disks;
    let fits = offered.len() == expected.len()
        && offered.iter().all(|offer| {
            expected
                .iter()
                .any(|disk| disk.index == offer.index && disk.source_bytes == offer.size_bytes)
        });
    if fits {
        Ok(())
    } else {
        Err(TransferError::Protocol(
            "the sender's disks are not those of the job".to_owned(),
        ))
    }
}

/// Takes the data streams, tells what is durable, and gives the last word.
async fn receive(
    shared: &Arc<Shared>,
    disks: &Arc<Disks>,
    connection: &Connection,
    to_sender: &mut SendStream,
    from_sender: &mut RecvStream,
    address: &str,
) -> Result<(), TransferError> {
    let lost = |error: &dyn std::fmt::Display| TransferError::Connection {
        address: address.to_owned(),
        message: error.to_string(),
    };
    let mut status = shared.status.subscribe();
    let mut streams = JoinSet::new();
    let (mut started, mut finished) = (0_u32, 0_u32);
    let mut sent = None;
    // Reading a message must not be dropped half way, so it is one future that lives across the turns of the loop.
    let mut last_message = Box::pin(control::read::<ToReceiver>(from_sender));
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let stream = stream.map_err(|error| lost(&error))?;
                let (shared, disks, address) = (Arc::clone(shared), Arc::clone(disks), address.to_owned());
                streams.spawn(async move { take_stream(stream, &shared, &disks, &address).await });
                started += 1;
            }
            Some(done) = streams.join_next() => {
                done.unwrap_or_else(|died| Err(TransferError::Protocol(format!("a stream's task died: {died}"))))?;
                finished += 1;
            }
            message = &mut last_message, if sent.is_none() => {
                match message.map_err(|error| error.at(address))? {
                    ToReceiver::Sent { streams, roots } => sent = Some((streams, roots)),
                    ToReceiver::Hello { .. } => return Err(TransferError::Protocol("a second Hello came".to_owned())),
                }
            }
            changed = status.changed() => {
                changed.map_err(|_| lost(&"the receiver ends"))?;
                let durable: Vec<_> = status.borrow_and_update().disks.iter().map(|disk| (disk.index, disk.bytes_durable)).collect();
                for (index, bytes) in durable {
                    let message = ToSender::Durable { index, bytes };
                    control::write(to_sender, &message).await.map_err(|error| lost(&error))?;
                }
            }
        }
        if let Some((expected, roots)) = &sent
            && *expected == started
            && finished == started
        {
            let (disks, roots, tell) = (Arc::clone(disks), roots.clone(), shared.status.clone());
            let concluded =
                tokio::task::spawn_blocking(move || disks.conclude(&roots, &tell)).await;
            concluded.unwrap_or_else(|died| {
                Err(TransferError::Protocol(format!(
                    "the comparison died: {died}"
                )))
            })?;
            return control::write(to_sender, &ToSender::Received)
                .await
                .map_err(|error| lost(&error));
        }
    }
}

/// One data stream: a task reads frames, a thread checks and writes them.
async fn take_stream(
    mut stream: RecvStream,
    shared: &Arc<Shared>,
    disks: &Arc<Disks>,
    address: &str,
) -> Result<(), TransferError> {
    let (queue, frames) = mpsc::channel(QUEUE);
    let (for_thread, disks_of_thread) = (Arc::clone(shared), Arc::clone(disks));
    let writer =
        tokio::task::spawn_blocking(move || write_frames(frames, &for_thread, &disks_of_thread));
    let read = read_frames(&mut stream, &queue, shared, address).await;
    drop(queue);
    let written = writer.await.unwrap_or_else(|died| {
        Err(TransferError::Protocol(format!(
            "the writing thread died: {died}"
        )))
    });
    // A failed write closes the queue, which ends the reading: the write's error is the cause.
    written.and(read)
}

type Taken = (Frame, Vec<u8>);

async fn read_frames(
    stream: &mut RecvStream,
    queue: &mpsc::Sender<Taken>,
    shared: &Shared,
    address: &str,
) -> Result<(), TransferError> {
    let lost = |error: &dyn std::fmt::Display| TransferError::Connection {
        address: address.to_owned(),
        message: error.to_string(),
    };
    loop {
        let mut header = [0; FRAME_BYTES];
        match stream.read_exact(&mut header).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(()),
            Err(error) => return Err(lost(&error)),
        }
        let frame =
            Frame::decode(&header).map_err(|error| TransferError::Protocol(error.to_string()))?;
        let length = match frame {
            Frame::Data { stored_bytes, .. } if stored_bytes <= CHUNK_BYTES => {
                stored_bytes as usize
            }
            Frame::Data { .. } => {
                return Err(TransferError::Protocol(
                    "a payload is longer than a chunk".to_owned(),
                ));
            }
            Frame::Zeros { .. } => 0,
        };
        let mut payload = vec![0; length];
        stream
            .read_exact(&mut payload)
            .await
            .map_err(|error| lost(&error))?;
        shared.status.send_if_modified(|status| {
            // Counted without waking anybody: flushes do that.
            status.bytes_wire += (FRAME_BYTES + length) as u64;
            false
        });
        if queue.send((frame, payload)).await.is_err() {
            return Err(TransferError::Cancelled);
        }
    }
}

fn write_frames(
    mut frames: mpsc::Receiver<Taken>,
    shared: &Shared,
    disks: &Disks,
) -> Result<(), TransferError> {
    let mut unpacked = vec![0; CHUNK_BYTES as usize];
    while let Some((frame, payload)) = frames.blocking_recv() {
        if disks.cancel.is_cancelled() {
            return Err(TransferError::Fenced {
                epoch: disks.admission.epoch,
            });
        }
        match frame {
            Frame::Zeros { disk, start, count } => {
                disks.write_zeros(&shared.fence, disk, start, count)?
            }
            Frame::Data {
                disk,
                chunk,
                hash,
                codec: Codec::Raw,
                ..
            } => {
                disks.write_chunk(&shared.fence, disk, chunk, hash, &payload)?;
            }
            Frame::Data {
                disk,
                chunk,
                hash,
                codec: Codec::Zstd,
                ..
            } => {
                let unpack = zstd::bulk::decompress_to_buffer(&payload, &mut unpacked[..]);
                let length = unpack.map_err(|error| TransferError::Corrupt {
                    disk,
                    what: format!("chunk {chunk} can't be unpacked: {error}"),
                })?;
                disks.write_chunk(&shared.fence, disk, chunk, hash, &unpacked[..length])?;
            }
        }
        if disks.pending_bytes() >= shared.config.flush_bytes {
            disks.wants_flush.notify_one();
        }
    }
    Ok(())
}
