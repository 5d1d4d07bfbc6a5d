//! One connection to the receiver, from Hello to Received.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::feeder::{Counters, Disk, Ready, Shared, feed};
use super::{SendConfig, SendProgress, SendReport};
use crate::TransferError;
use crate::control;
use crate::disk::SourceReader;
use crate::hashes::ChunkHashes;
use crate::limits::Pacer;
use crate::plan::{self, Cursor};
use crate::protocol::{FRAME_BYTES, OfferedDisk, ToReceiver, ToSender, VERSION};

/// How long the handshake and the answer to Hello may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the receiver may take from the last byte to its word: it flushes, and re-reads the disks when asked for checksums.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Chunks between a feeder and its stream.
const QUEUE: usize = 4;

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

pub(super) async fn run(
    endpoint: &Endpoint,
    config: &SendConfig,
    progress: &watch::Sender<SendProgress>,
    cancel: CancellationToken,
) -> Result<SendReport, TransferError> {
    let readers = open(config).await?;
    let connection = connect(endpoint, config).await?;
    let lost = |error: &dyn std::fmt::Display| lost(config, error);
    let (mut to_receiver, mut from_receiver) =
        connection.open_bi().await.map_err(|error| lost(&error))?;
    let disks = greet(config, readers, &mut to_receiver, &mut from_receiver).await?;

    progress.send_modify(|progress| {
        *progress = SendProgress {
            bytes_total: config.disks.iter().map(|disk| disk.size_bytes).sum(),
            bytes_durable: disks.iter().map(|disk| disk.present.known_bytes()).sum(),
            ..SendProgress::default()
        };
    });
    let shared = Arc::new(Shared {
        cursor: Cursor::new(claims(&disks)),
        disks,
        compression: config.compression,
        counters: Counters::default(),
        cancel,
    });
    let listening = listen(&mut from_receiver, config, progress, &shared);
    let sending = stream_all(&connection, config, &shared, &mut to_receiver);
    let sending = async {
        sending.await?;
        // From here on only the receiver's word, or its silence, ends the transfer.
        tokio::time::sleep(RECEIPT_TIMEOUT).await;
        Err::<(), _>(lost(&"the receiver gives no receipt"))
    };
    tokio::select! {
        biased;
        received = listening => received?,
        failed = sending => failed?,
        () = tell(progress, &shared) => {}
    }
    let mut last = *progress.borrow();
    shared.counters.copy_to(&mut last);
    last.bytes_durable = last.bytes_total;
    progress.send_replace(last);
    Ok(SendReport {
        roots: roots(&shared)?,
        progress: last,
    })
}

fn lost(config: &SendConfig, error: &dyn std::fmt::Display) -> TransferError {
    TransferError::Connection {
        address: config.receiver.to_string(),
        message: error.to_string(),
    }
}

async fn open(config: &SendConfig) -> Result<Vec<SourceReader>, TransferError> {
    let disks = config.disks.clone();
    blocking(move || {
        disks
            .iter()
            .map(|disk| SourceReader::open(&disk.path, disk.size_bytes))
            .collect()
    })
    .await
}

async fn connect(endpoint: &Endpoint, config: &SendConfig) -> Result<Connection, TransferError> {
    let connecting = endpoint
        .connect(config.receiver, &config.server_name)
        .map_err(|error| lost(config, &error))?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| lost(config, &error)),
        Err(_) => Err(lost(
            config,
            &format!("no answer in {HANDSHAKE_TIMEOUT:?}; is UDP allowed on the way?"),
        )),
    }
}

/// Hello and Welcome.
async fn greet(
    config: &SendConfig,
    readers: Vec<SourceReader>,
    to_receiver: &mut SendStream,
    from_receiver: &mut RecvStream,
) -> Result<Vec<Disk>, TransferError> {
    let offered = config
        .disks
        .iter()
        .map(|disk| OfferedDisk {
            index: disk.index,
            size_bytes: disk.size_bytes,
        })
        .collect();
    let hello = ToReceiver::Hello {
        version: VERSION,
        ticket: config.ticket.clone(),
        disks: offered,
    };
    control::write(to_receiver, &hello)
        .await
        .map_err(|error| lost(config, &error))?;
    let answer = tokio::time::timeout(WELCOME_TIMEOUT, control::read(from_receiver))
        .await
        .map_err(|_| lost(config, &"the receiver does not answer"))?
        .map_err(|error| error.at(&config.receiver.to_string()))?;
    let (chunk_bytes, present) = match answer {
        ToSender::Welcome {
            version: VERSION,
            chunk_bytes,
            disks,
        } => (chunk_bytes, disks),
        ToSender::Welcome { version, .. } => {
            return Err(TransferError::Version {
                ours: VERSION,
                theirs: version,
            });
        }
        ToSender::Refused(failure) => return Err(TransferError::Remote(failure)),
        ToSender::Durable { .. } | ToSender::Received => {
            return Err(TransferError::Protocol(
                "the receiver answers before it has welcomed".to_owned(),
            ));
        }
    };
    if present.len() != config.disks.len() {
        return Err(TransferError::Protocol(
            "the receiver has another number of disks".to_owned(),
        ));
    }
    readers
        .into_iter()
        .zip(&config.disks)
        .zip(present)
        .map(|((reader, disk), present)| {
            let present = present
                .hashes(disk.size_bytes, chunk_bytes)
                .ok_or_else(|| {
                    TransferError::Protocol(format!(
                        "the receiver's disk {} has another size",
                        disk.index
                    ))
                })?;
            let found = Mutex::new(ChunkHashes::new(disk.size_bytes, chunk_bytes));
            Ok(Disk {
                index: disk.index,
                reader,
                present,
                found,
            })
        })
        .collect()
}

fn claims(disks: &[Disk]) -> Vec<plan::Claim> {
    disks
        .iter()
        .enumerate()
        .flat_map(|(position, disk)| {
            let (size, chunk) = (disk.present.size_bytes(), disk.present.chunk_bytes());
            plan::claims(position, size, chunk, &disk.reader.extents())
        })
        .collect()
}

/// Runs every stream to its end, then says so with the roots.
async fn stream_all(
    connection: &Connection,
    config: &SendConfig,
    shared: &Arc<Shared>,
    to_receiver: &mut SendStream,
) -> Result<(), TransferError> {
    let pacer = Arc::new(Pacer::new(config.bandwidth_limit.clone()));
    let streams = config.streams.max(1);
    let mut work = JoinSet::new();
    for _ in 0..streams {
        let (queue, ready) = mpsc::channel(QUEUE);
        let feeder = Arc::clone(shared);
        work.spawn_blocking(move || feed(&feeder, &queue));
        let stream = connection
            .open_uni()
            .await
            .map_err(|error| lost(config, &error))?;
        let (config, shared, pacer) = (config.clone(), Arc::clone(shared), Arc::clone(&pacer));
        work.spawn(async move { write_stream(stream, ready, &config, &shared, &pacer).await });
    }
    while let Some(done) = work.join_next().await {
        match done {
            Ok(Ok(())) => {}
            // A feeder whose stream has failed is cancelled; the stream's own error is the one to tell.
            Ok(Err(TransferError::Cancelled)) if !work.is_empty() => {}
            Ok(Err(error)) => return Err(error),
            Err(panicked) => {
                return Err(TransferError::Protocol(format!(
                    "a stream's task died: {panicked}"
                )));
            }
        }
    }
    let sent = ToReceiver::Sent {
        streams: u32::try_from(streams).expect("streams are counted in tens"),
        roots: roots(shared)?,
    };
    control::write(to_receiver, &sent)
        .await
        .map_err(|error| lost(config, &error))
}

async fn write_stream(
    mut stream: SendStream,
    mut ready: mpsc::Receiver<Ready>,
    config: &SendConfig,
    shared: &Shared,
    pacer: &Pacer,
) -> Result<(), TransferError> {
    while let Some((frame, payload)) = ready.recv().await {
        let header = frame.encode();
        pacer.pay(FRAME_BYTES + payload.len()).await;
        stream
            .write_all(&header)
            .await
            .map_err(|error| lost(config, &error))?;
        Counters::add(&shared.counters.wire, (FRAME_BYTES + payload.len()) as u64);
        if !payload.is_empty() {
            stream
                .write_chunk(payload)
                .await
                .map_err(|error| lost(config, &error))?;
        }
    }
    stream.finish().map_err(|error| lost(config, &error))
}

/// What the receiver says while the disks are sent; `Ok` is its word that it has everything.
async fn listen(
    from_receiver: &mut RecvStream,
    config: &SendConfig,
    progress: &watch::Sender<SendProgress>,
    shared: &Shared,
) -> Result<(), TransferError> {
    let mut durable: Vec<u64> = shared
        .disks
        .iter()
        .map(|disk| disk.present.known_bytes())
        .collect();
    loop {
        match control::read(from_receiver)
            .await
            .map_err(|error| error.at(&config.receiver.to_string()))?
        {
            ToSender::Durable { index, bytes } => {
                for (disk, durable) in shared.disks.iter().zip(&mut durable) {
                    if disk.index == index {
                        *durable = bytes;
                    }
                }
                progress.send_modify(|progress| progress.bytes_durable = durable.iter().sum());
            }
            ToSender::Received => return Ok(()),
            ToSender::Refused(failure) => return Err(TransferError::Remote(failure)),
            ToSender::Welcome { .. } => {
                return Err(TransferError::Protocol(
                    "the receiver welcomes twice".to_owned(),
                ));
            }
        }
    }
}

async fn tell(progress: &watch::Sender<SendProgress>, shared: &Shared) {
    let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        interval.tick().await;
        progress.send_modify(|progress| shared.counters.copy_to(progress));
    }
}

fn roots(shared: &Shared) -> Result<Vec<(domain::disk::DiskIndex, crate::Hash)>, TransferError> {
    shared
        .disks
        .iter()
        .map(|disk| {
            let found = disk.found.lock().expect("no holder of this lock can panic");
            let root = found.root().ok_or_else(|| {
                TransferError::Protocol(format!("disk {} was not read to its end", disk.index))
            })?;
            Ok((disk.index, root))
        })
        .collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panicked| {
            Err(TransferError::Protocol(format!("reading died: {panicked}")))
        })
}
