//! The disks of one admission: files, chunk maps, and what is written but not yet flushed.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::disk::DiskIndex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Admission, DiskStatus, Receipt, ReceiveStatus, TargetDisk, disk_path};
use crate::chunk_map::{ChunkMap, Written};
use crate::disk::TargetWriter;
use crate::fence::Fence;
use crate::hashes::{Hash, hash};
use crate::{CHUNK_BYTES, ChunkHashes, TransferError};

/// All disks of an admission.
#[derive(Debug)]
pub(super) struct Disks {
    pub(super) admission: Admission,
    pub(super) cancel: CancellationToken,
    /// Told when enough is written to be worth a flush.
    pub(super) wants_flush: Notify,
    disks: Vec<Disk>,
    pending_bytes: AtomicU64,
    /// Flushes are made one at a time.
    flushing: Mutex<()>,
}

#[derive(Debug)]
struct Disk {
    spec: TargetDisk,
    writer: TargetWriter,
    map: Mutex<ChunkMap>,
    /// Written since the last flush.
    pending: Mutex<Vec<Written>>,
    receipt: Mutex<Option<Receipt>>,
}

impl Disks {
    /// Opens files and maps in the directory.
    pub(super) fn open(
        directory: &Path,
        admission: Admission,
        cancel: CancellationToken,
    ) -> Result<Self, TransferError> {
        let disks = admission
            .disks
            .iter()
            .map(|spec| Disk::open(directory, *spec))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            admission,
            cancel,
            wants_flush: Notify::new(),
            disks,
            pending_bytes: AtomicU64::new(0),
            flushing: Mutex::new(()),
        })
    }

    fn find(&self, index: DiskIndex) -> Result<&Disk, TransferError> {
        self.disks
            .iter()
            .find(|disk| disk.spec.index == index)
            .ok_or_else(|| TransferError::Protocol(format!("disk {index} is none of this job's")))
    }

    /// What is durable of a disk.
    pub(super) fn durable(&self, index: DiskIndex) -> Option<ChunkHashes> {
        let disk = self.find(index).ok()?;
        Some(
            disk.map
                .lock()
                .expect("no holder of this lock can panic")
                .hashes()
                .clone(),
        )
    }

    /// Checks and writes one chunk, under the fence.
    pub(super) fn write_chunk(
        &self,
        fence: &Fence,
        index: DiskIndex,
        chunk: u64,
        expected: Hash,
        bytes: &[u8],
    ) -> Result<(), TransferError> {
        let disk = self.find(index)?;
        disk.check_range(chunk, 1)?;
        if bytes.len() != disk.length_of(chunk) {
            return Err(TransferError::Protocol(format!(
                "chunk {chunk} of disk {index} has {} bytes",
                bytes.len()
            )));
        }
        let offset = chunk * u64::from(CHUNK_BYTES);
        if hash(bytes) != expected {
            let what = format!("the chunk at byte {offset} is not what was sent");
            return Err(TransferError::Corrupt { disk: index, what });
        }
        let _pass = fence.pass(self.admission.epoch)?;
        disk.writer.write(offset, bytes)?;
        disk.add_pending(Written::Data {
            chunk,
            hash: expected,
        });
        self.count_pending(bytes.len() as u64);
        Ok(())
    }

    /// Makes a stretch of chunks zeros, under the fence.
    pub(super) fn write_zeros(
        &self,
        fence: &Fence,
        index: DiskIndex,
        start: u64,
        count: u64,
    ) -> Result<(), TransferError> {
        let disk = self.find(index)?;
        disk.check_range(start, count)?;
        let offset = start * u64::from(CHUNK_BYTES);
        let end = (offset + count * u64::from(CHUNK_BYTES)).min(disk.spec.source_bytes);
        let _pass = fence.pass(self.admission.epoch)?;
        disk.writer.zero(offset, end - offset)?;
        disk.add_pending(Written::Zeros { start, count });
        Ok(())
    }

    fn count_pending(&self, bytes: u64) {
        self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes written since the last flush.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Makes durable what has been written: data, then maps; then tells it.
    pub(super) fn flush(&self, status: &watch::Sender<ReceiveStatus>) -> Result<(), TransferError> {
        let _alone = self
            .flushing
            .lock()
            .expect("no holder of this lock can panic");
        self.pending_bytes.store(0, Ordering::Relaxed);
        for disk in &self.disks {
            disk.flush()?;
        }
        let disks = self.status();
        status.send_if_modified(|status| {
            let changed = status.disks != disks;
            status.disks = disks;
            changed
        });
        Ok(())
    }

    /// Compares every disk with the roots that the sender has found; with checksums only after the disks were read again.
    pub(super) fn conclude(
        &self,
        roots: &[(DiskIndex, Hash)],
        status: &watch::Sender<ReceiveStatus>,
    ) -> Result<(), TransferError> {
        self.flush(status)?;
        if roots.len() != self.disks.len() {
            return Err(TransferError::Protocol(
                "the sender has another number of disks".to_owned(),
            ));
        }
        for (index, root) in roots {
            let disk = self.find(*index)?;
            let receipt = disk.conclude(*root, self.admission.checksum)?;
            *disk
                .receipt
                .lock()
                .expect("no holder of this lock can panic") = Some(receipt);
        }
        status.send_modify(|status| status.disks = self.status());
        Ok(())
    }

    /// Every disk as it is now.
    pub(super) fn status(&self) -> Vec<DiskStatus> {
        self.disks
            .iter()
            .map(|disk| DiskStatus {
                index: disk.spec.index,
                size_bytes: disk.spec.source_bytes,
                bytes_durable: disk
                    .map
                    .lock()
                    .expect("no holder of this lock can panic")
                    .hashes()
                    .known_bytes(),
                receipt: *disk
                    .receipt
                    .lock()
                    .expect("no holder of this lock can panic"),
            })
            .collect()
    }
}

impl Disk {
    fn open(directory: &Path, spec: TargetDisk) -> Result<Self, TransferError> {
        if spec.target_bytes < spec.source_bytes {
            return Err(TransferError::Protocol(format!(
                "disk {} of the image has {} bytes, the source's has {}",
                spec.index, spec.target_bytes, spec.source_bytes
            )));
        }
        let path = disk_path(directory, spec.index);
        let is_new = !path.exists();
        let writer = TargetWriter::open(&path, spec.target_bytes)?;
        let mut map = ChunkMap::open(
            &path.with_extension("chunks"),
            spec.source_bytes,
            CHUNK_BYTES,
        )?;
        if is_new {
            // A map without its disk remembers another one.
            map.clear()?;
        }
        Ok(Self {
            spec,
            writer,
            map: Mutex::new(map),
            pending: Mutex::new(Vec::new()),
            receipt: Mutex::new(None),
        })
    }

    fn length_of(&self, chunk: u64) -> usize {
        let offset = chunk * u64::from(CHUNK_BYTES);
        usize::try_from((self.spec.source_bytes - offset).min(u64::from(CHUNK_BYTES)))
            .expect("a chunk fits memory")
    }

    fn check_range(&self, start: u64, count: u64) -> Result<(), TransferError> {
        let chunks = self.spec.source_bytes.div_ceil(u64::from(CHUNK_BYTES));
        match start.checked_add(count) {
            Some(end) if end <= chunks && count > 0 => Ok(()),
            _ => Err(TransferError::Protocol(format!(
                "disk {} has no {count} chunks at {start}",
                self.spec.index
            ))),
        }
    }

    fn add_pending(&self, written: Written) {
        self.pending
            .lock()
            .expect("no holder of this lock can panic")
            .push(written);
    }

    fn flush(&self) -> Result<(), TransferError> {
        // Taken before the data is flushed: what is added meanwhile waits for the next flush.
        let written = std::mem::take(
            &mut *self
                .pending
                .lock()
                .expect("no holder of this lock can panic"),
        );
        if written.is_empty() {
            return Ok(());
        }
        self.writer.flush()?;
        self.map
            .lock()
            .expect("no holder of this lock can panic")
            .append(&written)
    }

    fn conclude(&self, sent: Hash, checksum: bool) -> Result<Receipt, TransferError> {
        let durable = self
            .map
            .lock()
            .expect("no holder of this lock can panic")
            .hashes()
            .clone();
        let receipt = Receipt::of(self.spec.index, &durable, sent)?;
        if checksum {
            let read = self.writer.rehash(self.spec.source_bytes, CHUNK_BYTES)?;
            if let Err(error) = Receipt::of(self.spec.index, &read, sent) {
                // The map believes what the disk does not hold: the next run must send it all again.
                self.map
                    .lock()
                    .expect("no holder of this lock can panic")
                    .clear()?;
                return Err(error);
            }
        }
        Ok(receipt)
    }
}
