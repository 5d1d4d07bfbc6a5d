//! The disks of one admission, the fence before them, and the window of bytes that are written but not yet durable.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use domain::disk::DiskIndex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::disk::{Arriving, JournaledDisk};
use super::{Admission, DiskStatus, Files, ReceiveStatus};
use crate::TransferError;
use crate::fence::{Fence, Right};
use crate::protocol::SentDisk;

/// Flush windows that may be written but not durable: one that is being flushed, and one that fills meanwhile.
const WINDOWS: u64 = 2;

/// All disks of an admission.
#[derive(Debug)]
pub(super) struct Disks {
    pub(super) admission: Admission,
    /// Ends the admission: a newer one, a halt, or a flush that failed.
    pub(super) cancel: CancellationToken,
    /// Told when enough is written to be worth a flush.
    pub(super) wants_flush: Notify,
    pub(super) chunk_bytes: u32,
    disks: Vec<JournaledDisk>,
    flush_bytes: u64,
    /// Data streams of the present connection.
    streams: AtomicU32,
    window: Mutex<Window>,
    /// Told when a flush has made room.
    room: Notify,
    /// Flushes are made one at a time.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Window {
    /// Bytes written since the last flush began.
    waiting: u64,
    /// Bytes that the present flush makes durable.
    in_flush: u64,
}

impl Disks {
    /// Opens files and maps.
    pub(super) fn open(
        files: &dyn Files,
        admission: Admission,
        flush_bytes: u64,
        chunk_bytes: u32,
    ) -> Result<Self, TransferError> {
        let disks = admission
            .disks
            .iter()
            .map(|spec| files.open(*spec, chunk_bytes))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            admission,
            cancel: CancellationToken::new(),
            wants_flush: Notify::new(),
            chunk_bytes,
            disks,
            flush_bytes: flush_bytes.max(1),
            streams: AtomicU32::new(0),
            window: Mutex::default(),
            room: Notify::new(),
            flushing: Mutex::new(()),
        })
    }

    /// Sets how many data streams there are.
    pub(super) fn has_streams(&self, streams: u32) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Bytes of a window. Two are lost in a crash and sent again, and that must not be more than `flush_bytes` for each
    /// stream.
    fn window_bytes(&self) -> u64 {
        match self.streams.load(Ordering::Relaxed) {
            0 | 1 => self.flush_bytes.div_ceil(WINDOWS),
            _ => self.flush_bytes,
        }
    }

    /// The disk with this index.
    pub(super) fn find(&self, index: DiskIndex) -> Result<&JournaledDisk, TransferError> {
        self.disks
            .iter()
            .find(|disk| disk.index() == index)
            .ok_or_else(|| TransferError::Protocol(format!("disk {index} is none of this job's")))
    }

    /// Checks and writes one chunk, under the fence. Whoever writes has waited for room.
    pub(super) fn write_chunk(
        &self,
        fence: &Fence,
        right: &Right,
        index: DiskIndex,
        arriving: &Arriving<'_>,
    ) -> Result<(), TransferError> {
        self.fenced(fence, right, index, |disk| disk.write_chunk(arriving))?;
        let mut window = self.window();
        window.waiting += arriving.bytes.len() as u64;
        if window.waiting >= self.window_bytes() {
            self.wants_flush.notify_one();
        }
        Ok(())
    }

    /// Acts on a disk under the fence.
    pub(super) fn fenced(
        &self,
        fence: &Fence,
        right: &Right,
        index: DiskIndex,
        act: impl FnOnce(&JournaledDisk) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let disk = self.find(index)?;
        let _pass = fence.pass(right)?;
        act(disk)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window
            .lock()
            .expect("no holder of this lock can panic")
    }

    /// Returns true when something was written since the last flush began.
    pub(super) fn waits_for_flush(&self) -> bool {
        self.window().waiting > 0
    }

    fn has_room(&self) -> bool {
        let window = self.window();
        window.waiting + window.in_flush < WINDOWS * self.window_bytes()
    }

    /// Waits until what a crash could lose is less than the bound.
    pub(super) async fn wait_for_room(&self) -> Result<(), TransferError> {
        while !self.has_room() {
            // Listens before it looks again, so that no flush is missed in between.
            let room = self.room.notified();
            if self.has_room() {
                break;
            }
            self.wants_flush.notify_one();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(TransferError::Fenced {
                    epoch: self.admission.epoch,
                }),
                () = room => {}
            }
        }
        Ok(())
    }

    /// Makes durable what has been written, then tells it.
    pub(super) fn flush(&self, status: &watch::Sender<ReceiveStatus>) -> Result<(), TransferError> {
        let _alone = self
            .flushing
            .lock()
            .expect("no holder of this lock can panic");
        {
            let mut window = self.window();
            window.in_flush += std::mem::take(&mut window.waiting);
        }
        // What could not be flushed is still what a crash could lose: it leaves no room for more.
        self.disks.iter().try_for_each(JournaledDisk::flush)?;
        self.window().in_flush = 0;
        self.room.notify_waiters();
        self.report(status);
        Ok(())
    }

    /// Says in every map that nothing is under way.
    pub(super) fn close(&self) -> Result<(), TransferError> {
        self.disks.iter().try_for_each(JournaledDisk::close)
    }

    /// Compares every disk with the roots that the sender has found; with checksums only after the disks were read
    /// again.
    pub(super) fn conclude(
        &self,
        sent: &[SentDisk],
        status: &watch::Sender<ReceiveStatus>,
    ) -> Result<(), TransferError> {
        self.flush(status)?;
        let names_each = self.disks.iter().all(|disk| {
            sent.iter()
                .filter(|sent| sent.index == disk.index())
                .count()
                == 1
        });
        if sent.len() != self.disks.len() || !names_each {
            return Err(TransferError::Protocol(
                "the sender's roots are not those of the job's disks".to_owned(),
            ));
        }
        for disk in sent {
            self.find(disk.index)?
                .conclude(disk, self.admission.checksum)?;
        }
        self.report(status);
        Ok(())
    }

    fn report(&self, status: &watch::Sender<ReceiveStatus>) {
        let disks = self.status();
        status.send_if_modified(|status| {
            let has_changed = status.disks != disks;
            status.disks = disks;
            has_changed
        });
    }

    /// Every disk as it is now.
    pub(super) fn status(&self) -> Vec<DiskStatus> {
        self.disks
            .iter()
            .map(|disk| {
                let unreadable = disk.unreadable();
                DiskStatus {
                    index: disk.index(),
                    size_bytes: disk.spec.source_bytes,
                    bytes_durable: disk.durable_bytes(),
                    unreadable_ranges: unreadable.len() as u64,
                    unreadable_bytes: chunks::unreadable::bytes(&unreadable),
                    receipt: disk.receipt(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chunks::ChunkRange;
    use domain::{Epoch, JobId, Run};
    use tokio::sync::mpsc;

    use super::*;
    use crate::TicketSecret;
    use crate::disk::volatile_storage::{Medium, Sync};
    use crate::receiver::TargetDisk;
    use crate::simulation::Media;

    /// Writes more than may wait; answers with how much of it was written before the rest had to wait for a flush.
    async fn written_without_a_flush(streams: u32) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let fence = Arc::new(Fence::open(directory.path()).unwrap());
        fence.raise(Epoch(1)).unwrap();
        let right = fence.grant(Epoch(1)).unwrap();
        let spec = TargetDisk {
            index: DiskIndex(0),
            source_bytes: 8 << 20,
            target_bytes: 8 << 20,
        };
        let admission = Admission {
            epoch: Epoch(1),
            job_id: JobId::generate(),
            run: Run(1),
            secret: TicketSecret::generate(),
            disks: vec![spec],
            checksum: false,
        };
        let disk = Medium::default();
        let media = Media(vec![(disk.clone(), Medium::default())]);
        let disks = Arc::new(Disks::open(&media, admission, 1 << 20, 1 << 20).unwrap());
        disks.has_streams(streams);
        let (done, mut written) = mpsc::channel(4);
        let writer = Arc::clone(&disks);
        tokio::spawn(async move {
            let bytes = vec![1; 1 << 20];
            let hash = chunks::hashes::hash(&bytes);
            for chunk in ChunkRange::new(0, 8).iter() {
                let outcome = writer.wait_for_room().await.and_then(|()| {
                    let arriving = Arriving {
                        chunk,
                        hash,
                        bytes: &bytes,
                        unreadable: &[],
                    };
                    writer.write_chunk(&fence, &right, DiskIndex(0), &arriving)
                });
                done.send(outcome).await.unwrap();
            }
        });
        let before = until_it_waits(&mut written).await;
        let status = watch::channel(ReceiveStatus::default()).0;
        disks.flush(&status).unwrap();
        assert_eq!(status.borrow().disks[0].bytes_durable, before);
        assert_eq!(until_it_waits(&mut written).await, before);
        // What could not be flushed may be lost like what was not.
        disk.next_sync(Sync::Failing);
        disks.flush(&status).unwrap_err();
        assert_eq!(until_it_waits(&mut written).await, 0);
        // Whoever waits when the admission ends is let go.
        disks.cancel.cancel();
        let released = written.recv().await.unwrap();
        assert!(matches!(released, Err(TransferError::Fenced { .. })));
        before
    }

    async fn until_it_waits(written: &mut mpsc::Receiver<Result<(), TransferError>>) -> u64 {
        let (long, mut bytes) = (Duration::from_secs(3600), 0);
        while let Ok(outcome) = tokio::time::timeout(long, written.recv()).await {
            outcome.unwrap().unwrap();
            bytes += 1 << 20;
        }
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_one_window_for_each_stream_waits_for_a_flush_and_two_in_all() {
        for (streams, windows) in [(1, 1), (2, 2), (16, 2)] {
            let written = written_without_a_flush(streams).await;
            assert_eq!(written, windows << 20, "{streams} streams");
        }
    }
}
