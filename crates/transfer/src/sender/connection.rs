//! One connection to the receiver, from Hello to Received.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chunks::buffer::BufferPool;
use chunks::hashes::Hash;
use chunks::{ByteRange, CHUNK_BYTES_ALLOWED, ContentFingerprint};
use domain::disk::{DiskIndex, Moment};
use domain::parameters::Consistency;
use source::SourceReader;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{Connection, Control, MOST_STREAMS, RecvStream, SendStream};

use super::compression_controller::{CompressionController, Processors};
use super::inspection::Inspection;
use super::producer::{Counters, DiskPass, Pass, Ready, produce};
use super::{Choice, SendConfig, SendProgress, SendReport};
use crate::TransferError;
use crate::control;
use crate::cpu_pool::{self, blocking};
use crate::limits::{LARGEST_PIECE, Pacer};
use crate::plan::{self, Cursor};
use crate::protocol::{OfferedDisk, Page, SentDisk, ToReceiver, ToSender, VERSION};

/// Time for the answer to Hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(60);

/// Time that the receiver has from the last byte to its word: it flushes, and re-reads the disks when asked for
/// checksums.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Chunks between a producer and its stream, and between all and theirs.
const QUEUE: usize = 4;
const QUEUES: usize = 32;

/// Buffers that are kept while nobody needs them: twice what QUIC's least window holds until it is acknowledged.
const IDLE_BUFFERS: usize = 32;

/// Time in which something must move while disks are sent: the source's bytes or those on the wire. A connection keeps
/// itself alive, so this is what notices a receiver that lives but takes nothing, or a disk that does not answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Time after a stream broke in which the receiver's own word on why may still come.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval at which a write is looked for, where one ends the transfer.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

pub(super) async fn run<C: Connection>(
    client: &C,
    (mut to_receiver, mut from_receiver): Control<C>,
    choice: Choice,
    config: &SendConfig,
    inspection: &Arc<Inspection>,
    progress: &watch::Sender<SendProgress>,
    cancel: CancellationToken,
) -> Result<SendReport, TransferError> {
    let readers = open(config, inspection).await?;
    let lost = |error: &dyn std::fmt::Display| lost(config, error);
    let disks = greet(
        config,
        choice,
        readers,
        &mut to_receiver,
        &mut from_receiver,
    )
    .await?;

    let chunk_bytes = disks.iter().map(|disk| disk.chunk_bytes).max().unwrap_or(0);
    let present: Vec<u64> = disks.iter().map(DiskPass::present_bytes).collect();
    progress.send_replace(SendProgress {
        transport: Some(choice),
        bytes_total: config.disks.iter().map(|disk| disk.size_bytes).sum(),
        bytes_durable: present.iter().sum(),
        copied_free_space: inspection.copied(),
        ..SendProgress::default()
    });
    let pass = Arc::new(Pass {
        disks,
        compression: config.compression,
        controller: Mutex::new((CompressionController::default(), Processors::new())),
        began: Instant::now(),
        buffers: BufferPool::new(chunk_bytes as usize, IDLE_BUFFERS),
        counters: Counters::default(),
        cancel,
    });
    let listening = listen(&mut from_receiver, config, progress, &pass, present);
    tokio::pin!(listening);
    let sending = async {
        let sent = tokio::select! {
            biased;
            sent = stream_all(client, config, &pass, inspection, &mut to_receiver) => sent,
            () = stalled(|| pass.moved(), STALL_TIMEOUT) => Err(lost(&format!(
                "nothing was read or taken for {STALL_TIMEOUT:?}"
            ))),
            written = written(&pass, inspection), if config.ends_at_a_write => Err(written),
        };
        match sent {
            Err(error) => error,
            Ok(()) => {
                // From here on only the receiver's word, or its silence, ends the transfer.
                tokio::time::sleep(RECEIPT_TIMEOUT).await;
                lost(&"the receiver gives no receipt")
            }
        }
    };
    tokio::select! {
        biased;
        ended = &mut listening => ended?,
        failed = sending => return Err(last_word(failed, listening).await),
        () = report(progress, &pass) => {}
    }
    let mut last = progress.borrow().clone();
    pass.counters.copy_to(&mut last);
    last.bytes_durable = last.bytes_total;
    progress.send_replace(last.clone());
    let report = Arc::clone(&pass);
    let roots = blocking(move || roots(&report)).await?;
    Ok(SendReport {
        roots,
        progress: last,
    })
}

/// Ends when a count has stood still for so long.
async fn stalled(moved: impl Fn() -> u64, patience: Duration) {
    let mut last = (moved(), Instant::now());
    loop {
        tokio::time::sleep(patience / 20).await;
        let now = moved();
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() >= patience {
            return;
        }
    }
}

/// Ends when a disk has been written since the inspection.
async fn written(pass: &Arc<Pass>, inspection: &Arc<Inspection>) -> TransferError {
    loop {
        tokio::time::sleep(WRITE_INTERVAL).await;
        let (pass, inspection) = (Arc::clone(pass), Arc::clone(inspection));
        let inspected = blocking(move || moments(&pass, &inspection, Consistency::Crash)).await;
        if let Err(error) = inspected {
            return error;
        }
    }
}

/// The moment of each disk's copy, from the inspection until now.
///
/// # Errors
/// [`TransferError::Written`], where one that is not one moment in time is not wanted.
fn moments(
    pass: &Pass,
    inspection: &Inspection,
    consistency: Consistency,
) -> Result<Vec<Moment>, TransferError> {
    let disks = pass.disks.iter().enumerate();
    let moments =
        disks.map(
            |(position, disk)| match inspection.moment_of(position, disk.reader.observe()) {
                Moment::Several if consistency == Consistency::Crash => {
                    Err(TransferError::Written {
                        path: disk.reader.path().to_owned(),
                    })
                }
                moment => Ok(moment),
            },
        );
    moments.collect()
}

/// Returns why sending failed. The receiver breaks the streams when it gives up; the reason comes on the control
/// stream, perhaps a moment later.
async fn last_word(
    failed: TransferError,
    listening: impl Future<Output = Result<(), TransferError>>,
) -> TransferError {
    if !matches!(
        failed,
        TransferError::Connection { .. } | TransferError::Cancelled
    ) {
        return failed;
    }
    match tokio::time::timeout(LAST_WORD_TIMEOUT, listening).await {
        Ok(Err(told @ TransferError::Remote(_))) => told,
        _ => failed,
    }
}

fn lost(config: &SendConfig, error: &dyn std::fmt::Display) -> TransferError {
    TransferError::Connection {
        address: config.receiver.to_string(),
        message: error.to_string(),
    }
}

/// Every disk, and the fingerprint that it still has since the inspection.
async fn open(
    config: &SendConfig,
    inspection: &Arc<Inspection>,
) -> Result<Vec<(SourceReader, Option<ContentFingerprint>)>, TransferError> {
    let (disks, sources) = (config.disks.clone(), Arc::clone(&config.sources));
    let (bad_sectors, inspection) = (config.bad_sectors, Arc::clone(inspection));
    blocking(move || {
        let opened = disks.iter().enumerate().map(|(position, disk)| {
            let reader = SourceReader::open(&*sources, &disk.path, disk.size_bytes, bad_sectors)?;
            let fingerprint = inspection.fingerprint_of(position);
            let still = fingerprint.filter(|_| reader.observe().fingerprint() == fingerprint);
            Ok((reader, still))
        });
        opened.collect()
    })
    .await
}

/// Hello and Welcome.
async fn greet(
    config: &SendConfig,
    choice: Choice,
    readers: Vec<(SourceReader, Option<ContentFingerprint>)>,
    to_receiver: &mut impl SendStream,
    from_receiver: &mut impl RecvStream,
) -> Result<Vec<DiskPass>, TransferError> {
    let offered = config
        .disks
        .iter()
        .zip(&readers)
        .map(|(disk, (_, fingerprint))| OfferedDisk {
            index: disk.index,
            size_bytes: disk.size_bytes,
            fingerprint: fingerprint.map(|fingerprint| fingerprint.with(disk.free_space)),
        })
        .collect();
    let hello = ToReceiver::Hello {
        version: VERSION,
        ticket: config.ticket.clone(),
        disks: offered,
        transport_reason: choice.to_string(),
    };
    control::write(to_receiver, &hello)
        .await
        .map_err(|error| lost(config, &error))?;
    let answer = tokio::time::timeout(WELCOME_TIMEOUT, control::read(from_receiver))
        .await
        .map_err(|_| lost(config, &"the receiver does not answer"))?
        .map_err(|error| error.at(&config.receiver.to_string()))?;
    let chunk_bytes = match answer {
        ToSender::Welcome {
            version: VERSION,
            chunk_bytes,
        } => chunk_bytes,
        ToSender::Welcome { version, .. } => {
            return Err(TransferError::Version {
                ours: VERSION,
                theirs: version,
            });
        }
        ToSender::Refused(failure) => return Err(TransferError::Remote(failure)),
        _ => return Err(out_of_turn("welcomed")),
    };
    if !CHUNK_BYTES_ALLOWED.contains(&chunk_bytes) {
        return Err(TransferError::Protocol(format!(
            "the receiver wants chunks of {chunk_bytes} bytes"
        )));
    }
    let mut disks: Vec<DiskPass> = readers
        .into_iter()
        .zip(&config.disks)
        .map(|((reader, fingerprint), disk)| {
            DiskPass::new(
                disk.index,
                reader,
                fingerprint.is_some(),
                disk.size_bytes,
                chunk_bytes,
                disk.candidates.clone(),
                &config.scratch,
            )
        })
        .collect();
    loop {
        let message = tokio::time::timeout(WELCOME_TIMEOUT, control::read(from_receiver))
            .await
            .map_err(|_| lost(config, &"the receiver does not go on"))?
            .map_err(|error| error.at(&config.receiver.to_string()))?;
        match message {
            ToSender::Present(page) => disks = blocking(move || record(page, disks)).await?,
            ToSender::Unchanged { index, chunks } => {
                let disk = disks.iter_mut().find(|disk| disk.index == index);
                disk.ok_or_else(|| out_of_turn("welcomed"))?
                    .add_unchanged(chunks);
            }
            ToSender::PresentEnd => return Ok(disks),
            // A flush of what an earlier connection wrote.
            ToSender::Durable { .. } => {}
            ToSender::Refused(failure) => return Err(TransferError::Remote(failure)),
            ToSender::Welcome { .. } | ToSender::Received | ToSender::Probed { .. } => {
                return Err(out_of_turn("told"));
            }
        }
    }
}

/// Enters a part of what the receiver has.
fn record(page: Page, disks: Vec<DiskPass>) -> Result<Vec<DiskPass>, TransferError> {
    let disk = disks.iter().find(|disk| disk.index == page.index);
    if disk.map_or(Ok(false), |disk| disk.record_page(&page))? {
        Ok(disks)
    } else {
        let what = format!("the receiver's disk {} has another size", page.index);
        Err(TransferError::Protocol(what))
    }
}

fn out_of_turn(what: &str) -> TransferError {
    TransferError::Protocol(format!(
        "the receiver says something else before it has {what}"
    ))
}

/// Returns what is to be inspected, from the file systems' own word on where data is and on what they do not use.
async fn claims(pass: &Arc<Pass>, inspection: &Arc<Inspection>) -> Result<Cursor, TransferError> {
    let (pass, inspection) = (Arc::clone(pass), Arc::clone(inspection));
    blocking(move || {
        let claims = pass.disks.iter().enumerate().flat_map(|(position, disk)| {
            let to_inspect = disk.begin_pass();
            let left_out = disk.size_bytes - disk.bytes_of(&to_inspect);
            Counters::add(&pass.counters.equal, left_out);
            let claims = |data: &[ByteRange]| {
                let all = plan::claims(position, disk.size_bytes, disk.chunk_bytes, data);
                plan::only(all, &to_inspect)
            };
            let data = disk.reader.extents();
            let used = claims(&chunks::without(&data, inspection.free_space_of(position)));
            let free = disk.bytes_to_read(&claims(&data)) - disk.bytes_to_read(&used);
            Counters::add(&pass.counters.free, free);
            used
        });
        Ok(Cursor::new(claims.collect()))
    })
    .await
}

/// Runs every stream to its end, then says so with the roots.
async fn stream_all(
    client: &impl Connection,
    config: &SendConfig,
    pass: &Arc<Pass>,
    inspection: &Arc<Inspection>,
    to_receiver: &mut impl SendStream,
) -> Result<(), TransferError> {
    let cursor = Arc::new(claims(pass, inspection).await?);
    let bytes = pass.counters.free.load(Ordering::Relaxed);
    if bytes > 0 {
        control::write(to_receiver, &ToReceiver::LeftOut { bytes })
            .await
            .map_err(|error| lost(config, &error))?;
    }
    let limit = config.bandwidth_limit.clone();
    let pacer = Arc::new(Pacer::new(limit, config.shared_limit.as_ref()));
    let streams = config.streams.clamp(1, MOST_STREAMS);
    let opened = client.open_data(streams, config.connections).await;
    let mut streaming = JoinSet::new();
    let opened = opened.map_err(|error| lost(config, &error))?;
    for (number, stream) in opened.into_iter().enumerate() {
        let (queue, ready) = mpsc::channel(QUEUE.min(QUEUES / streams));
        let producer = cpu_pool::start(produce(
            Arc::clone(pass),
            Arc::clone(&cursor),
            number,
            queue,
        ));
        streaming.spawn(async move { cpu_pool::ended(producer.await) });
        let (config, pass, pacer) = (config.clone(), Arc::clone(pass), Arc::clone(&pacer));
        streaming.spawn(async move { write_stream(stream, ready, &config, &pass, &pacer).await });
    }
    while let Some(done) = streaming.join_next().await {
        match cpu_pool::ended(done) {
            Ok(()) => {}
            // A producer whose stream has failed is cancelled; the stream's own error is the one to tell.
            Err(TransferError::Cancelled) if !streaming.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    let (finished, inspection) = (Arc::clone(pass), Arc::clone(inspection));
    let consistency = config.consistency;
    let disks = blocking(move || {
        finished
            .disks
            .iter()
            .try_for_each(|disk| disk.reader.check_size())?;
        let moments = moments(&finished, &inspection, consistency)?;
        inspection.check_free_space()?;
        let disks = roots(&finished)?.into_iter().zip(moments);
        let disks = disks.map(|((index, root), moment)| SentDisk {
            index,
            root,
            moment,
        });
        Ok(disks.collect())
    });
    let sent = ToReceiver::Sent {
        streams: u32::try_from(streams).expect("streams are counted in tens"),
        disks: disks.await?,
    };
    control::write(to_receiver, &sent)
        .await
        .map_err(|error| lost(config, &error))
}

async fn write_stream(
    mut stream: impl SendStream,
    mut ready: mpsc::Receiver<Ready>,
    config: &SendConfig,
    pass: &Pass,
    pacer: &Pacer,
) -> Result<(), TransferError> {
    while let Some((frame, payload)) = ready.recv().await {
        let header = Bytes::copy_from_slice(&frame.encode());
        write_paced(&mut stream, [header, payload], pass, pacer)
            .await
            .map_err(|error| lost(config, &error))?;
    }
    stream.finish().await.map_err(|error| lost(config, &error))
}

/// Writes without copying, in pieces as small as the limit asks for, and never so large that a slow link looks like one
/// that stands.
async fn write_paced(
    stream: &mut impl SendStream,
    [mut header, mut payload]: [Bytes; 2],
    pass: &Pass,
    pacer: &Pacer,
) -> io::Result<()> {
    while !header.is_empty() || !payload.is_empty() {
        // The header goes with the first piece: it is not worth a turn of its own.
        let most = pacer.piece().unwrap_or(LARGEST_PIECE);
        let piece = payload.split_to(most.min(payload.len()));
        let length = header.len() + piece.len();
        pacer.pay(length).await;
        for bytes in [std::mem::take(&mut header), piece] {
            if !bytes.is_empty() {
                stream.write_chunk(bytes).await?;
            }
        }
        Counters::add(&pass.counters.wire, length as u64);
    }
    Ok(())
}

/// Reads the receiver's messages while the disks are sent; `Ok` is its word that it has everything.
async fn listen(
    from_receiver: &mut impl RecvStream,
    config: &SendConfig,
    progress: &watch::Sender<SendProgress>,
    pass: &Pass,
    mut durable: Vec<u64>,
) -> Result<(), TransferError> {
    loop {
        match control::read(from_receiver)
            .await
            .map_err(|error| error.at(&config.receiver.to_string()))?
        {
            ToSender::Durable { index, bytes } => {
                for (disk, durable) in pass.disks.iter().zip(&mut durable) {
                    if disk.index == index {
                        *durable = bytes;
                    }
                }
                progress.send_modify(|progress| progress.bytes_durable = durable.iter().sum());
            }
            ToSender::Received => return Ok(()),
            ToSender::Refused(failure) => return Err(TransferError::Remote(failure)),
            ToSender::Welcome { .. }
            | ToSender::Present(_)
            | ToSender::Unchanged { .. }
            | ToSender::PresentEnd
            | ToSender::Probed { .. } => {
                return Err(out_of_turn("received"));
            }
        }
    }
}

async fn report(progress: &watch::Sender<SendProgress>, pass: &Pass) {
    let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        interval.tick().await;
        progress.send_modify(|progress| pass.counters.copy_to(progress));
    }
}

fn roots(pass: &Pass) -> Result<Vec<(DiskIndex, Hash)>, TransferError> {
    pass.disks
        .iter()
        .map(|disk| {
            let unread =
                || TransferError::Protocol(format!("disk {} was not read to its end", disk.index));
            Ok((disk.index, disk.root()?.ok_or_else(unread)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_stalled_and_what_stands_is() {
        let count = AtomicU64::new(0);
        let patience = Duration::from_millis(400);
        let watching = stalled(|| count.load(Ordering::Relaxed), patience);
        tokio::pin!(watching);
        for _ in 0..20 {
            count.fetch_add(1, Ordering::Relaxed);
            let pause = tokio::time::sleep(patience / 10);
            tokio::select! {
                biased;
                () = &mut watching => panic!("it moves"),
                () = pause => {}
            }
        }
        let began = Instant::now();
        tokio::time::timeout(Duration::from_secs(30), watching)
            .await
            .expect("it stands");
        assert!(began.elapsed() >= patience / 2);
    }
}
