//! One sender's connection: who it is, what it sends, and what it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chunks::ChunkRange;
use chunks::buffer::BufferPool;
use chunks::chunk_set::ChunkSet;
use domain::disk::DiskIndex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::{Accepted, Kind, MOST_STREAMS, RecvStream, SendStream};

use super::disks::Disks;
use super::{Shared, stream};
use crate::cpu_pool::{self, blocking};
use crate::fence::Right;
use crate::protocol::{OfferedDisk, SentDisk, ToReceiver, ToSender};
use crate::{TransferError, control};

/// Time that a sender has to read one message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Buffers that are kept while nobody needs them.
const IDLE_BUFFERS: usize = 16;

/// A sender that has shown its ticket.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) disks: Arc<Disks>,
    /// The right that lets its writes through, until another connection or epoch takes over.
    pub(super) right: Right,
    /// Cancelled when another connection takes over.
    pub(super) replaced: CancellationToken,
    pub(super) buffers: Arc<BufferPool>,
    /// The chunks that it has sent. Each chunk comes once, so several threads write without asking each other: the
    /// order in which writes land and that in which they are recorded need not agree.
    seen: Vec<(DiskIndex, Mutex<ChunkSet>)>,
    address: String,
}

/// The end of a round: how many data streams there were, and what the sender says of each disk.
type Sent = (u32, Vec<SentDisk>);

impl Session {
    /// A session with the right to write to `disks`. Takes that right from whoever has it, and flushes what that one
    /// has written, so that every write of this session meets either nothing or an entry of the map.
    pub(super) fn begin(
        shared: &Shared,
        disks: Arc<Disks>,
        address: String,
        (transport, reason): (Kind, String),
        offered: &[OfferedDisk],
    ) -> Result<Self, TransferError> {
        let right = shared.fence.grant(disks.admission.epoch)?;
        let replaced = shared.replace_session(transport, reason);
        disks.flush(&shared.status)?;
        for offer in offered {
            disks.fenced(&shared.fence, &right, offer.index, |disk| {
                disk.read_from(offer.fingerprint)
            })?;
        }
        disks.has_streams(0);
        let seen = disks
            .admission
            .disks
            .iter()
            .map(|spec| {
                let chunks = spec.source_bytes.div_ceil(u64::from(disks.chunk_bytes));
                (spec.index, Mutex::new(ChunkSet::new(chunks)))
            })
            .collect();
        Ok(Self {
            buffers: BufferPool::new(disks.chunk_bytes as usize, IDLE_BUFFERS),
            disks,
            right,
            replaced,
            seen,
            address,
        })
    }

    /// Marks chunks as sent.
    pub(super) fn mark(&self, index: DiskIndex, chunks: ChunkRange) -> Result<(), TransferError> {
        let seen = self.seen.iter().find(|(known, _)| *known == index);
        let is_new = seen.is_some_and(|(_, seen)| {
            seen.lock()
                .expect("no holder of this lock can panic")
                .insert(chunks)
        });
        if is_new {
            Ok(())
        } else {
            Err(TransferError::Protocol(format!(
                "{} chunks from {} of disk {index} came twice, or are none of the disk's",
                chunks.count, chunks.first
            )))
        }
    }

    pub(super) fn lost(&self, error: &dyn std::fmt::Display) -> TransferError {
        TransferError::Connection {
            address: self.address.clone(),
            message: error.to_string(),
        }
    }

    /// Writes a message to the sender.
    pub(super) async fn send(
        &self,
        to_sender: &mut impl SendStream,
        message: &ToSender,
    ) -> Result<(), TransferError> {
        let written = tokio::time::timeout(WRITE_TIMEOUT, control::write(to_sender, message)).await;
        written
            .map_err(|_| self.lost(&"it does not read what it is told"))?
            .map_err(|error| self.lost(&error))
    }

    /// Takes the data streams, tells what is durable, and gives the last word.
    pub(super) async fn receive(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        connection: &mut impl Accepted,
        to_sender: &mut impl SendStream,
        from_sender: &mut impl RecvStream,
    ) -> Result<(), TransferError> {
        let mut status = shared.status.subscribe();
        let mut streams = JoinSet::new();
        let (mut started, mut finished) = (0_u32, 0_u32);
        let mut sent: Option<Sent> = None;
        let (received, mut receives) = oneshot::channel();
        // Reading a message must not be dropped half way, so it is one future that lives across the turns of the loop.
        let mut listening = Box::pin(self.listen(shared, from_sender, received));
        loop {
            // A message to the sender is never dropped half way either: nothing that ends the session interrupts a
            // turn.
            tokio::select! {
                biased;
                () = self.disks.cancel.cancelled() => return Err(shared.over(&self.disks)),
                () = self.replaced.cancelled() => return Err(TransferError::Replaced),
                stream = connection.accept_data() => {
                    let stream = stream.map_err(|error| self.lost(&error))?;
                    if started as usize == MOST_STREAMS {
                        return Err(TransferError::Protocol(format!(
                            "a session may have {MOST_STREAMS} data streams, and the sender has opened more"
                        )));
                    }
                    streams.spawn(stream::take(stream, Arc::clone(shared), Arc::clone(self)));
                    started += 1;
                    self.disks.has_streams(started);
                }
                Some(done) = streams.join_next() => {
                    cpu_pool::ended(done)?;
                    finished += 1;
                }
                ended = &mut listening => return Err(ended),
                Ok(message) = &mut receives, if sent.is_none() => sent = Some(message),
                changed = status.changed() => {
                    changed.map_err(|_| self.lost(&"the receiver ends"))?;
                    let durable: Vec<_> = {
                        let status = status.borrow_and_update();
                        status.disks.iter().map(|disk| (disk.index, disk.bytes_durable)).collect()
                    };
                    for (index, bytes) in durable {
                        self.send(to_sender, &ToSender::Durable { index, bytes }).await?;
                    }
                }
            }
            if let Some((expected, disks)) = &sent
                && *expected == started
                && finished == started
            {
                self.conclude(shared, disks.clone()).await?;
                return self.send(to_sender, &ToSender::Received).await;
            }
        }
    }

    /// Hears what is left out, and that everything is sent. What the sender says or does on the control stream besides
    /// is the end.
    async fn listen(
        &self,
        shared: &Shared,
        from_sender: &mut impl RecvStream,
        received: oneshot::Sender<Sent>,
    ) -> TransferError {
        let sent = loop {
            match control::read(from_sender).await {
                Ok(ToReceiver::LeftOut { bytes }) => {
                    shared
                        .status
                        .send_modify(|status| status.bytes_free = bytes);
                }
                Ok(ToReceiver::Sent { streams, disks }) => break (streams, disks),
                Ok(ToReceiver::Hello { .. } | ToReceiver::Probe { .. }) => {
                    return TransferError::Protocol(
                        "a second Hello or a late probe came".to_owned(),
                    );
                }
                Err(error) => return error.at(&self.address),
            }
        };
        // The session that waits for it goes on to hear the end of the connection.
        let _waits = received.send(sent);
        match control::read_body(from_sender).await {
            Ok(_) => TransferError::Protocol("a message came after the last".to_owned()),
            Err(error) => error.at(&self.address),
        }
    }

    async fn conclude(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        disks: Vec<SentDisk>,
    ) -> Result<(), TransferError> {
        let (session, status) = (Arc::clone(self), shared.status.clone());
        blocking(move || session.disks.conclude(&disks, &status)).await
    }
}
