//! Images: directories made from the received disks, and their way into the store.
//!
//! An image is a directory of the store: for each disk `disk-N.raw`, `disk-N.qcow2` and `disk-N.manifest`, and
//! `image.json` about them all. It is built under another name and renamed when it is complete and flushed, so a
//! directory with an image's name is always an image. A build that crashed starts again; an image that was renamed is
//! found. A directory that does not belong to this job is never touched.

mod build;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use domain::disk::{DiskIndex, DiskLayout, Moment};
use domain::{Failure, ImageId, JobId, SourceId};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use transfer::disk::Reserve;
use transfer::receiver::{Proven, TargetDisk};

/// `image.json`: the description of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDescription {
    /// The image's id.
    pub image_id: String,
    /// Its name.
    pub name: String,
    /// The job that made it.
    pub job_id: String,
    /// The source that it was made from.
    pub source_id: String,
    /// Time of its creation, UTC.
    pub created: String,
    /// Its disks, by index.
    pub disks: Vec<ImageDisk>,
}

/// A disk of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDisk {
    /// Index of the disk; 0 is the system disk.
    pub index: u16,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of the source's disk; zeros lie behind them.
    pub source_bytes: u64,
    /// Sectors and partition table of the source's disk.
    #[serde(flatten)]
    pub layout: DiskLayout,
    /// BLAKE3 root over the source's bytes, in hexadecimal; see the manifest's format.
    pub root_hash: String,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// Ranges that the source could not read and that are zeros here; the manifest lists them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unreadable_ranges: u64,
    /// Their bytes together.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unreadable_bytes: u64,
    /// Consistency of the copy: one moment of the source's disk, or several. Images of earlier versions don't have this
    /// field.
    #[serde(default)]
    pub consistency: Moment,
    /// File with the disk's raw bytes.
    pub raw: String,
    /// File with the disk as qcow2.
    pub qcow2: String,
    /// File with a hash for each chunk.
    pub manifest: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The image to build.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) image_id: ImageId,
    pub(crate) image_name: String,
    pub(crate) job_id: JobId,
    pub(crate) source_id: SourceId,
    pub(crate) layouts: BTreeMap<DiskIndex, DiskLayout>,
    pub(crate) disks: Vec<(TargetDisk, PathBuf, Proven)>,
}

/// Progress of an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Progress {
    /// No image was requested.
    None,
    /// 0 to 1.
    Building(f64),
    /// Complete, and in the store.
    Stored {
        location: String,
        description: String,
    },
    /// The image can't be built.
    Failed(Failure),
}

/// Builds one image at a time.
#[derive(Debug)]
pub(crate) struct Builder {
    store: PathBuf,
    qemu_img: PathBuf,
    reserve: Reserve,
    progress: Arc<Mutex<Progress>>,
}

impl Builder {
    pub(crate) fn new(store: PathBuf, qemu_img: PathBuf, reserve: Reserve) -> Self {
        Self {
            store,
            qemu_img,
            reserve,
            progress: Arc::new(Mutex::new(Progress::None)),
        }
    }

    /// The directories of an image: where it is made, and where it is published.
    pub(crate) fn directories(&self, image_id: &ImageId) -> [PathBuf; 2] {
        [
            build::partial(&self.store, image_id),
            self.store.join(image_id.as_str()),
        ]
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
            .lock()
            .expect("no holder of this lock can panic")
            .clone()
    }

    /// Starts to build the image, unless it is being built or exists already.
    pub(crate) fn start(&self, order: Order, span: tracing::Span) {
        {
            let mut progress = self
                .progress
                .lock()
                .expect("no holder of this lock can panic");
            if matches!(*progress, Progress::Building(_) | Progress::Stored { .. }) {
                return;
            }
            *progress = Progress::Building(0.0);
        }
        let (store, qemu_img, progress) = (
            self.store.clone(),
            self.qemu_img.clone(),
            Arc::clone(&self.progress),
        );
        let told = Arc::clone(&progress);
        let reserve = self.reserve;
        let building = async move {
            let tell = move |fraction| {
                *told.lock().expect("no holder of this lock can panic") =
                    Progress::Building(fraction);
            };
            let built = build::build(&store, &qemu_img, reserve, order, tell).await;
            *progress.lock().expect("no holder of this lock can panic") = match built {
                Ok((location, description)) => Progress::Stored {
                    location,
                    description,
                },
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the image can't be made"
                    );
                    Progress::Failed(error.failure())
                }
            };
        };
        tokio::spawn(building.instrument(span));
    }
}
