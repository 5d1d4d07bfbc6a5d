//! The receiving side: takes chunks from senders, checks and writes them, and says what is durable.
//!
//! A [`Server`] listens as long as its process lives. [`Server::admit`] opens the disks of a run and raises the fence;
//! only senders whose ticket carries that epoch get through the *handshake*. One connection at a time has a *session*
//! with the right to write: its task talks on the control stream, and one task and one thread take each data *stream*.
//! One thread, the *flusher*, makes what they wrote durable and says so; see [`crate::chunk_map`] for why it can be
//! believed.

pub(crate) mod disk;
mod disks;
mod flusher;
mod handshake;
mod session;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chunks::hashes::{ChunkHashes, Hash};
use chunks::{ByteRange, CHUNK_BYTES};
use domain::disk::{DiskIndex, Moment};
use domain::{Epoch, Failure, JobId, Run};
use service::door::{Door, Reason};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transport::{Identity, Kind, Listener, net};

use crate::cpu_pool::blocking;
use crate::disk::Reserve;
use crate::error::RemoteFailure;
use crate::manifest;
use crate::protocol::SentDisk;
use crate::{TicketSecret, TransferError};
use disks::Disks;
pub use handshake::HandshakeLimits;

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address to listen at; port 0 finds a free one.
    pub listen: SocketAddr,
    /// The receiver's certificate of this run.
    pub identity: Identity,
    /// The name in the certificate of the one who may send.
    pub sender: String,
    /// The instance's directory: fence, chunk maps and disks lie in it.
    pub directory: PathBuf,
    /// A flush begins when so many bytes wait for it …
    pub flush_bytes: u64,
    /// … or when so much time has passed.
    pub flush_interval: Duration,
    /// Bytes of a chunk. Senders take what they are told.
    pub chunk_bytes: u32,
    /// Places for connections, and the patience with strangers.
    pub handshake: HandshakeLimits,
    /// Room that is left free on the directory's file system.
    pub reserve: Reserve,
}

impl ServerConfig {
    /// The defaults: a flush each 64 MiB or second, and no reserve.
    pub fn new(
        listen: SocketAddr,
        identity: Identity,
        sender: impl Into<String>,
        directory: PathBuf,
    ) -> Self {
        Self {
            listen,
            identity,
            sender: sender.into(),
            directory,
            flush_bytes: 64 << 20,
            flush_interval: Duration::from_secs(1),
            chunk_bytes: CHUNK_BYTES,
            handshake: HandshakeLimits::default(),
            reserve: Reserve::Bytes(0),
        }
    }
}

/// A disk to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetDisk {
    /// The disk.
    pub index: DiskIndex,
    /// Bytes of the source's disk.
    pub source_bytes: u64,
    /// Bytes of the target; what lies behind the source's bytes is zeros.
    pub target_bytes: u64,
}

/// The right of one run to send its disks.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The epoch of the lease; senders need a ticket of it.
    pub epoch: Epoch,
    /// The job that tickets must name.
    pub job_id: JobId,
    /// The run that tickets must name.
    pub run: Run,
    /// Secret of the tickets.
    pub secret: TicketSecret,
    /// All disks of the job.
    pub disks: Vec<TargetDisk>,
    /// Re-read each disk and compare roots before its receipt.
    pub checksum: bool,
}

/// Proof that a disk is complete: only a comparison of both sides' roots makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    root: Hash,
    size_bytes: u64,
    chunks: u64,
    moment: Moment,
}

impl Receipt {
    /// Compares the roots of a disk; that of what is durable exists when every chunk is.
    fn of(
        durable: &ChunkHashes,
        root: Option<Hash>,
        sent: &SentDisk,
    ) -> Result<Self, TransferError> {
        let disk = sent.index;
        let corrupt = |what: String| TransferError::Corrupt { disk, what };
        let root = root.ok_or_else(|| {
            corrupt(format!(
                "{} of {} chunks arrived",
                durable.known(),
                durable.chunks()
            ))
        })?;
        if root != sent.root {
            return Err(corrupt("its root hash is not the source's".to_owned()));
        }
        Ok(Self {
            root,
            size_bytes: durable.size_bytes(),
            chunks: durable.chunks(),
            moment: sent.moment,
        })
    }

    /// BLAKE3 root of the disk.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The same in hexadecimal.
    pub fn root_hex(&self) -> String {
        blake3::Hash::from(self.root).to_hex().to_string()
    }

    /// Bytes of the source's disk.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Says whether the source's disk was written while it was read.
    pub fn moment(&self) -> Moment {
        self.moment
    }
}

/// A disk that has its receipt.
#[derive(Debug, Clone)]
pub struct Proven {
    disks: Arc<Disks>,
    index: DiskIndex,
    receipt: Receipt,
}

impl Proven {
    /// The proof.
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> u32 {
        self.disks.chunk_bytes
    }

    /// Returns the ranges that the source could not read, in order: it has zeros there.
    ///
    /// # Errors
    /// The disk is none of the present job's.
    pub fn unreadable(&self) -> io::Result<Vec<ByteRange>> {
        let disk = self.disks.find(self.index).map_err(io::Error::other)?;
        Ok(disk.unreadable())
    }

    /// Writes its manifest. This blocks.
    ///
    /// # Errors
    /// The manifest can't be written, or the disk was written again since it had its receipt.
    pub fn write_manifest(&self, to: impl io::Write) -> io::Result<()> {
        let disk = self.disks.find(self.index).map_err(io::Error::other)?;
        let size_bytes = self.receipt.size_bytes;
        let known = |chunks| disk.durable(chunks);
        let head = manifest::write(to, size_bytes, self.chunk_bytes(), disk.unreadable(), known)?;
        if head.root == self.receipt.root {
            Ok(())
        } else {
            Err(io::Error::other("the disk was written again meanwhile"))
        }
    }
}

/// A disk as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStatus {
    /// The disk.
    pub index: DiskIndex,
    /// Bytes of the source's disk.
    pub size_bytes: u64,
    /// Bytes of it that are on the target, flushed, and in the chunk map.
    pub bytes_durable: u64,
    /// Ranges of it that the source can't read and that are zeros here.
    pub unreadable_ranges: u64,
    /// Their bytes together.
    pub unreadable_bytes: u64,
    /// Present when it is complete.
    pub receipt: Option<Receipt>,
}

/// The receiver as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReceiveStatus {
    /// Every disk that was admitted, by index.
    pub disks: Vec<DiskStatus>,
    /// True if a sender is connected.
    pub connected: bool,
    /// The transport of the last sender.
    pub transport: Option<Kind>,
    /// The reason why the sender took it.
    pub transport_reason: String,
    /// Bytes of free space that the last sender left out: the target has zeros there.
    pub bytes_free: u64,
    /// Bytes that came over the data streams since the server started.
    pub bytes_wire: u64,
    /// Bytes of the sender's disks that its frames stood for since the server started: sent, empty, or here already.
    pub bytes_covered: u64,
    /// The failure that ended the transfer for good, if any.
    pub failure: Option<Failure>,
}

impl ReceiveStatus {
    /// Returns true if every disk has its receipt.
    pub fn is_complete(&self) -> bool {
        !self.disks.is_empty() && self.disks.iter().all(|disk| disk.receipt.is_some())
    }
}

/// The storage of an instance's disks: its directory, or in tests storage that forgets or lies.
pub(crate) trait Files: std::fmt::Debug + Send + Sync {
    /// Opens a disk with its chunk map.
    fn open(
        &self,
        spec: TargetDisk,
        chunk_bytes: u32,
    ) -> Result<disk::JournaledDisk, TransferError>;
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Files for Directory {
    fn open(
        &self,
        spec: TargetDisk,
        chunk_bytes: u32,
    ) -> Result<disk::JournaledDisk, TransferError> {
        disk::JournaledDisk::open(&self.0, spec, chunk_bytes)
    }
}

/// A running receiver.
#[derive(Debug)]
pub struct Server<L: Listener = net::Listener> {
    listener: Arc<L>,
    shared: Arc<Shared>,
}

/// The state that the server's tasks share.
#[derive(Debug)]
struct Shared {
    config: ServerConfig,
    door: Door,
    files: Box<dyn Files>,
    fence: crate::fence::Fence,
    admitted: Mutex<Option<Arc<Disks>>>,
    /// Admissions and halts are made one at a time.
    admitting: Mutex<()>,
    /// Cancelled when another connection takes the right to write.
    session: Mutex<Option<CancellationToken>>,
    status: watch::Sender<ReceiveStatus>,
    closing: CancellationToken,
}

impl Server {
    /// Binds the listener. Nobody gets in before [`Server::admit`].
    ///
    /// # Errors
    /// The address is taken, the identity can't be used, or the directory can't be read.
    pub fn bind(config: ServerConfig) -> Result<Self, TransferError> {
        let listener = net::Listener::bind(config.listen, &config.identity, &config.sender)?;
        let files = Directory(config.directory.clone());
        Self::start(config, listener, Box::new(files))
    }
}

impl<L: Listener> Server<L> {
    /// Takes connections from any listener to disks on any storage.
    pub(crate) fn start(
        config: ServerConfig,
        listener: L,
        files: Box<dyn Files>,
    ) -> Result<Self, TransferError> {
        let listener = Arc::new(listener);
        let fence = crate::fence::Fence::open(&config.directory)?;
        let (status, _) = watch::channel(ReceiveStatus::default());
        let shared = Arc::new(Shared {
            door: Door::new("receiver", config.handshake.places),
            config,
            files,
            fence,
            admitted: Mutex::default(),
            admitting: Mutex::default(),
            session: Mutex::default(),
            status,
            closing: CancellationToken::new(),
        });
        tokio::spawn(handshake::accept(
            Arc::clone(&listener),
            Arc::clone(&shared),
        ));
        Ok(Self { listener, shared })
    }

    /// Returns its address: the same port for UDP and for TCP.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.address()
    }

    /// Number of connections that it has ended, by reason.
    pub fn ended(&self) -> Vec<(Reason, u64)> {
        self.shared.door.ended()
    }

    /// The epoch at which the fence stands.
    pub fn epoch(&self) -> Epoch {
        self.shared.fence.epoch()
    }

    /// Raises the fence to the admission's epoch, opens its disks, and lets its sender in. The sender of a lower epoch
    /// is put out, and no byte of it lands after this returns. The same epoch again changes nothing.
    ///
    /// # Errors
    /// [`TransferError::Fenced`] for an epoch below the fence; a disk or map that can't be opened.
    pub async fn admit(&self, admission: Admission) -> Result<(), TransferError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.admit(admission)).await
    }

    /// Returns the status, and its changes.
    pub fn status(&self) -> watch::Receiver<ReceiveStatus> {
        self.shared.status.subscribe()
    }

    /// A disk that has its receipt, for its manifest.
    pub fn proven(&self, index: DiskIndex) -> Option<Proven> {
        let disks = self.shared.lock_admitted().clone()?;
        let receipt = disks.find(index).ok()?.receipt()?;
        Some(Proven {
            disks,
            index,
            receipt,
        })
    }

    /// The file of a target disk.
    pub fn directory(&self) -> &Path {
        &self.shared.config.directory
    }

    /// The file of a disk.
    pub fn disk_path(&self, index: DiskIndex) -> PathBuf {
        disk_path(&self.shared.config.directory, index)
    }

    /// Puts the sender out and flushes. What is durable stays for the next admission.
    ///
    /// # Errors
    /// The last flush failed; what it held is not in the map and will be sent again.
    pub async fn halt(&self) -> Result<(), TransferError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.halt()).await
    }

    /// Halts and closes the listener.
    ///
    /// # Errors
    /// See [`Server::halt`].
    pub async fn shutdown(self) -> Result<(), TransferError> {
        let halted = self.halt().await;
        self.shared.closing.cancel();
        self.listener.close(b"shut down");
        let _said_goodbye =
            tokio::time::timeout(Duration::from_secs(1), self.listener.wait_idle()).await;
        halted
    }
}

impl<L: Listener> Drop for Server<L> {
    /// Lets go without flushing or saying goodbye, as a process that is killed.
    fn drop(&mut self) {
        self.shared.closing.cancel();
        if let Some(disks) = &*self.shared.lock_admitted() {
            disks.cancel.cancel();
        }
        self.shared.fence.revoke();
        self.listener.close(b"gone");
    }
}

impl Shared {
    fn lock_admitted(&self) -> MutexGuard<'_, Option<Arc<Disks>>> {
        self.admitted
            .lock()
            .expect("no holder of this lock can panic")
    }

    /// The disks that may be written to.
    fn admitted(&self) -> Option<Arc<Disks>> {
        self.lock_admitted()
            .clone()
            .filter(|disks| !disks.cancel.is_cancelled())
    }

    fn admit(self: &Arc<Self>, admission: Admission) -> Result<(), TransferError> {
        // Two admissions at once would open the same files twice.
        let _alone = self
            .admitting
            .lock()
            .expect("no holder of this lock can panic");
        self.fence.raise(admission.epoch)?;
        let is_admitted = |disks: Arc<Disks>| disks.admission.epoch == admission.epoch;
        if self.admitted().is_some_and(is_admitted) {
            return Ok(());
        }
        if let Err(error) = self.end_admission() {
            tracing::warn!(%error, "what the last admission wrote at its end is lost and will be sent again");
        }
        let disks = Arc::new(Disks::open(
            &*self.files,
            admission,
            self.config.flush_bytes,
            self.config.chunk_bytes,
        )?);
        self.status.send_modify(|status| {
            status.failure = None;
            status.disks = disks.status();
        });
        flusher::start(Arc::clone(self), Arc::clone(&disks));
        *self.lock_admitted() = Some(disks);
        Ok(())
    }

    fn halt(&self) -> Result<(), TransferError> {
        let _alone = self
            .admitting
            .lock()
            .expect("no holder of this lock can panic");
        self.end_admission()
    }

    /// Ends the admission that stands: nobody writes any more when this returns, and what was written is flushed.
    fn end_admission(&self) -> Result<(), TransferError> {
        let Some(disks) = self.admitted() else {
            return Ok(());
        };
        disks.cancel.cancel();
        self.fence.revoke();
        disks.flush(&self.status)?;
        disks.close()
    }

    /// Tells the session that writes, if there is one, that another takes over; answers with the token of the other.
    fn replace_session(&self, transport: Kind, reason: String) -> CancellationToken {
        let token = CancellationToken::new();
        let before = self
            .session
            .lock()
            .expect("no holder of this lock can panic")
            .replace(token.clone());
        if let Some(before) = before {
            before.cancel();
        }
        self.status.send_modify(|status| {
            status.connected = true;
            status.transport = Some(transport);
            status.transport_reason = reason;
            status.bytes_free = 0;
        });
        token
    }

    /// A session has ended. One that was replaced says nothing: its successor is connected.
    fn leave(&self, session: &session::Session) {
        if !session.replaced.is_cancelled() {
            self.status.send_modify(|status| status.connected = false);
        }
    }

    /// Flushes what was written, and then checks that the reserve is still free. The file system is asked once a flush,
    /// so no more than a flush goes beyond the reserve.
    fn flush(&self, disks: &Disks) -> Result<(), TransferError> {
        let wrote = disks.waits_for_flush();
        disks.flush(&self.status)?;
        let directory = &self.config.directory;
        // A file system that does not say is found out by its writes.
        match self.config.reserve.room(directory) {
            Ok(room) if wrote && room.is_used_up() => Err(TransferError::TargetReserve { room }),
            _ => Ok(()),
        }
    }

    /// Notes an error that ends the job, if it is one.
    fn fail(&self, error: &TransferError) {
        if !error.is_retryable() {
            self.status
                .send_modify(|status| status.failure = Some(error.failure()));
        }
    }

    /// Returns why an admission ended under its sender: a flush that failed, or a newer owner, or a halt.
    fn over(&self, disks: &Disks) -> TransferError {
        match &self.status.borrow().failure {
            Some(failure) => TransferError::Remote(RemoteFailure {
                code: failure.code,
                message: failure.message.clone(),
                retryable: false,
            }),
            None => TransferError::Fenced {
                epoch: disks.admission.epoch,
            },
        }
    }
}

/// The file of a target disk in an instance's directory.
pub fn disk_path(directory: &Path, index: DiskIndex) -> PathBuf {
    directory.join(format!("disk-{index}.raw"))
}
