//! The sending side: reads the disks, and sends what the receiver does not have.
//!
//! Every stream has a *producer*, a thread that claims pieces of the disks, reads, hashes and packs them, and a task
//! that writes what the producer made to a stream of the transport. Between the two is a short queue: its length, and
//! the transport's windows, bound the bytes in flight.

mod choice;
mod compression_controller;
mod connection;
mod inspection;
mod producer;
mod transport_failures;
mod transport_monitor;

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transport::net::Net;
use transport::{Connection as _, Identity, Transport};

use crate::TransferError;
use crate::limits::SharedLimit;
use crate::plan::Candidates;

use transport_monitor::until_another_serves_better;

use choice::Connected;
pub use choice::{Choice, Preference, Probed, Reason};
use chunks::hashes::Hash;
use inspection::inspect;
use source::Sources;
pub use transport_failures::FailedAttempt;

/// Streams of a transfer unless the caller says otherwise: with two, reading one piece overlaps with sending another,
/// and each keeps a processor busy.
pub fn default_streams() -> usize {
    processors().clamp(2, 8)
}

/// QUIC connections of a transfer unless the caller says otherwise: each keeps a processor busy, and half of them are
/// left to read and hash.
pub fn default_connections() -> usize {
    (processors() / 2).clamp(1, 4)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Time for the last datagram to go. The receiver has given its word, or can't be reached: nothing depends on its
/// answer.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(20);

/// The packing of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None while the processor is the bottleneck, else as high a level as carries the most.
    #[default]
    Auto,
    /// None.
    Off,
    /// This zstd level, 1 to 19.
    Level(i32),
}

/// A disk to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDisk {
    /// The disk.
    pub index: DiskIndex,
    /// File or block device.
    pub path: PathBuf,
    /// The size that it must have, in bytes.
    pub size_bytes: u64,
    /// The chunks of it that are inspected.
    pub candidates: Candidates,
    /// The treatment of space that its file systems do not use.
    pub free_space: FreeSpace,
}

/// A transfer to one receiver.
#[derive(Debug, Clone)]
pub struct SendConfig {
    /// The receiver's listeners: one port for UDP and TCP.
    pub receiver: SocketAddr,
    /// The transport, or how it is chosen.
    pub transport: Preference,
    /// The name in the receiver's certificate.
    pub server_name: String,
    /// The agent's certificate of this run.
    pub identity: Identity,
    /// The ticket as it was assigned.
    pub ticket: Vec<u8>,
    /// All disks of the job.
    pub disks: Vec<SourceDisk>,
    /// The opener of disks: [`source::Files`], or in tests one of disks that fail.
    pub sources: Arc<dyn Sources>,
    /// True if chunks that were read once are left alone while the kernel says that nothing was written. Not for disks
    /// that others write to as well.
    pub change_tracking: bool,
    /// The treatment of sectors that can't be read.
    pub bad_sectors: BadSectors,
    /// The treatment of a disk that is written during its copy.
    pub consistency: Consistency,
    /// True if a write is looked for all the time, and not only at the end: after a pass that was in vain another need
    /// not take as long.
    pub ends_at_a_write: bool,
    /// The packing of payloads.
    pub compression: Compression,
    /// Parallel streams, 1 to [`transport::MOST_STREAMS`].
    pub streams: usize,
    /// Most connections that QUIC spreads them over. TCP has one for each stream.
    pub connections: usize,
    /// Most bytes a second; `None` for no limit. May change while the transfer runs.
    pub bandwidth_limit: watch::Receiver<Option<u64>>,
    /// A limit above that, which this transfer shares with others.
    pub shared_limit: Option<SharedLimit>,
    /// A directory on a disk, for what is known of disks so large that it does not fit memory: files without names, 32
    /// MiB for each TiB.
    pub scratch: PathBuf,
}

/// Free space of a disk that is copied although it was to be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedFreeSpace {
    /// The disk.
    pub index: DiskIndex,
    /// The reason, in words that can follow a colon.
    pub reason: String,
}

/// The progress of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendProgress {
    /// The transport of the disks, once it is chosen.
    pub transport: Option<Choice>,
    /// Bytes of all disks.
    pub bytes_total: u64,
    /// Bytes that the receiver has said are durable.
    pub bytes_durable: u64,
    /// Bytes given to the data streams, headers included.
    pub bytes_wire: u64,
    /// Bytes of chunks sent, before packing.
    pub bytes_payload: u64,
    /// Bytes that were holes or zeros, or free space that was left out.
    pub bytes_zero: u64,
    /// Of these, bytes of free space: they were not read.
    pub bytes_free: u64,
    /// Disks whose free space is copied in whole or in part. Known before anything is sent.
    pub copied_free_space: Arc<[CopiedFreeSpace]>,
    /// Bytes that were read of the disks: neither holes nor free space, nor what is known not to have changed.
    pub bytes_read: u64,
    /// Bytes that the receiver already had.
    pub bytes_equal: u64,
}

/// A transfer that ended with the receiver's word that everything is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReport {
    /// The root of each disk, by index.
    pub roots: Vec<(DiskIndex, Hash)>,
    /// The final figures.
    pub progress: SendProgress,
}

/// Sends the disks over the network until the receiver has everything durably.
///
/// # Errors
/// See [`TransferError`]; a retryable one may be tried again at once: what is durable is not sent again.
pub async fn send(
    config: SendConfig,
    cancel: CancellationToken,
    progress: watch::Sender<SendProgress>,
) -> Result<SendReport, TransferError> {
    send_over(&Net, config, cancel, progress).await
}

/// The same over any transport.
///
/// # Errors
/// As with [`send`].
pub(crate) async fn send_over<T: Transport>(
    network: &T,
    config: SendConfig,
    cancel: CancellationToken,
    progress: watch::Sender<SendProgress>,
) -> Result<SendReport, TransferError> {
    let preparing = async {
        let inspection = inspect(&config).await?;
        progress.send_modify(|progress| progress.copied_free_space = inspection.copied());
        let connected = choice::connect(network, &config).await?;
        Ok::<_, TransferError>((Arc::new(inspection), connected))
    };
    let (inspection, mut connected) = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(TransferError::Cancelled),
        prepared = preparing => prepared?,
    };
    loop {
        let ((client, control), choice) = connected;
        progress.send_modify(|progress| progress.transport = Some(choice));
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(TransferError::Cancelled),
            sent = connection::run(&client, control, choice, &config, &inspection, &progress, cancel.child_token()) => {
                sent.map(Ended::<T>::Sent)
            }
            better = until_another_serves_better(network, &client, choice, &config, progress.subscribe()) => {
                Ok(Ended::Moved(Box::new(better)))
            }
        };
        let _said_goodbye = tokio::time::timeout(GOODBYE_TIMEOUT, client.close()).await;
        match ended? {
            Ended::Sent(report) => return Ok(report),
            Ended::Moved(moved) => {
                let better = moved.1;
                tracing::info!(transport = %better.transport, reason = %better, "the transfer goes on over another transport");
                connected = *moved;
            }
        }
    }
}

/// The good end of one connection.
enum Ended<T: Transport> {
    Sent(SendReport),
    Moved(Box<(Connected<T>, Choice)>),
}
