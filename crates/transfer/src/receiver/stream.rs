//! One data stream: a task reads frames, a thread checks and writes them.

use std::sync::Arc;

use chunks::ByteRange;
use chunks::buffer::PooledBuffer;
use chunks::packing::Unpacker;
use chunks::unreadable::MOST_UNREADABLE_RANGES;
use domain::disk::DiskIndex;
use tokio::sync::mpsc;
use transport::RecvStream;

use super::Shared;
use super::disk::Arriving;
use super::session::Session;
use crate::protocol::{FRAME_BYTES, Frame};
use crate::{TransferError, cpu_pool};

/// Frames between the task and the thread.
const QUEUE: usize = 4;

type Taken = (Frame, Option<PooledBuffer>);

/// Takes a stream to its end.
pub(super) async fn take(
    mut stream: impl RecvStream,
    shared: Arc<Shared>,
    session: Arc<Session>,
) -> Result<(), TransferError> {
    let (queue, frames) = mpsc::channel(QUEUE);
    let writer = cpu_pool::start(write_frames(
        frames,
        Arc::clone(&shared),
        Arc::clone(&session),
    ));
    let read = read_frames(&mut stream, &queue, &shared, &session).await;
    drop(queue);
    let written = cpu_pool::ended(writer.await);
    // A failed write closes the queue, which ends the reading: the write's error is the cause.
    written.and(read)
}

async fn read_frames(
    stream: &mut impl RecvStream,
    queue: &mpsc::Sender<Taken>,
    shared: &Shared,
    session: &Session,
) -> Result<(), TransferError> {
    loop {
        let mut header = [0; FRAME_BYTES];
        let has_more = stream.read_exact_or_end(&mut header).await;
        if !has_more.map_err(|error| session.lost(&error))? {
            return Ok(());
        }
        let frame =
            Frame::decode(&header).map_err(|error| TransferError::Protocol(error.to_string()))?;
        let payload = match frame {
            Frame::Zeros { .. } | Frame::Unreadable { .. } | Frame::Same { .. } => None,
            Frame::Data { stored_bytes, .. } if stored_bytes <= session.disks.chunk_bytes => {
                let mut payload = session.buffers.take(stored_bytes as usize);
                let read = stream.read_exact(payload.as_mut_slice()).await;
                read.map_err(|error| session.lost(&error))?;
                Some(payload)
            }
            Frame::Data { .. } => {
                return Err(TransferError::Protocol(
                    "a payload is longer than a chunk".to_owned(),
                ));
            }
        };
        let bytes = FRAME_BYTES + payload.as_ref().map_or(0, |payload| payload.as_ref().len());
        shared.status.send_if_modified(|status| {
            // Counted without waking anybody: flushes do that.
            status.bytes_wire += bytes as u64;
            let chunk_bytes = u64::from(session.disks.chunk_bytes);
            status.bytes_covered = status
                .bytes_covered
                .saturating_add(chunks_of(&frame).saturating_mul(chunk_bytes));
            false
        });
        if queue.send((frame, payload)).await.is_err() {
            return Err(TransferError::Cancelled);
        }
    }
}

/// Chunks that a frame stands for.
fn chunks_of(frame: &Frame) -> u64 {
    match frame {
        Frame::Zeros { chunks, .. } | Frame::Same { chunks, .. } => chunks.count,
        Frame::Data { .. } => 1,
        Frame::Unreadable { .. } => 0,
    }
}

/// The half of a stream that blocks.
async fn write_frames(
    mut frames: mpsc::Receiver<Taken>,
    shared: Arc<Shared>,
    session: Arc<Session>,
) -> Result<(), TransferError> {
    let (disks, right) = (&session.disks, &session.right);
    let mut unpacked = session.buffers.take(disks.chunk_bytes as usize);
    let mut unpacker = Unpacker::default();
    // What the chunk that comes next has lost.
    let mut unreadable: Vec<(DiskIndex, ByteRange)> = Vec::new();
    while let Some((frame, payload)) = frames.recv().await {
        let payload = payload.as_ref().map_or(&[][..], AsRef::as_ref);
        match frame {
            Frame::Zeros { disk, chunks } => {
                session.mark(disk, chunks)?;
                let unreadable = take_unreadable(&mut unreadable, disk)?;
                disks.fenced(&shared.fence, right, disk, |disk| {
                    disk.write_zeros(chunks, &unreadable)
                })?;
            }
            Frame::Same { disk, chunks } => {
                session.mark(disk, chunks)?;
                disks.fenced(&shared.fence, right, disk, |disk| disk.same(chunks))?;
            }
            Frame::Unreadable { disk, range } if unreadable.len() < MOST_UNREADABLE_RANGES => {
                unreadable.push((disk, range))
            }
            Frame::Unreadable { disk, .. } => return Err(too_many(disk)),
            Frame::Data {
                disk,
                chunk,
                hash,
                codec,
                ..
            } => {
                session.mark(disk, chunk.into())?;
                let bytes = unpacker.unpack(codec, payload, unpacked.as_mut_slice());
                let bytes = bytes.map_err(|error| TransferError::Corrupt {
                    disk,
                    what: format!("chunk {chunk} can't be unpacked: {error}"),
                })?;
                disks.wait_for_room().await?;
                let written = Arriving {
                    chunk,
                    hash,
                    bytes,
                    unreadable: &take_unreadable(&mut unreadable, disk)?,
                };
                disks.write_chunk(&shared.fence, right, disk, &written)?;
            }
        }
    }
    Ok(())
}

/// The unreadable ranges that have come for the next chunk, which is one of this disk.
fn take_unreadable(
    unreadable: &mut Vec<(DiskIndex, ByteRange)>,
    disk: DiskIndex,
) -> Result<Vec<ByteRange>, TransferError> {
    if unreadable.iter().any(|(of, _)| *of != disk) {
        return Err(TransferError::Protocol(format!(
            "unreadable ranges of another disk came with a chunk of disk {disk}"
        )));
    }
    Ok(unreadable.drain(..).map(|(_, range)| range).collect())
}

pub(super) fn too_many(disk: DiskIndex) -> TransferError {
    TransferError::Protocol(format!(
        "disk {disk} has more than {MOST_UNREADABLE_RANGES} unreadable ranges"
    ))
}
