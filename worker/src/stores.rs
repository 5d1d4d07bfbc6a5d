//! The directories of instances and images: can they be written, and is there room?
//!
//! Before a run copies anything, the check does in small what a receiver does: make a file and flush it, give it a
//! second name in the image store, and rename the directory that it lies in. Readiness repeats only the write and the
//! flush.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use domain::{Failure, FailureCode, InstanceId};
use transfer::disk::{Reserve, Room, stored_bytes};

/// Time for which readiness relies on its last successful write.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// Room that must be left in the image store for manifests and tables.
const SPARE_BYTES: u64 = 64 << 20;

const TRIED_BYTES: usize = 4096;

/// Both directories of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instances: PathBuf,
    images: PathBuf,
    reserve: Reserve,
    /// Time of the last successful write. Held during one, so that a file system that hangs holds up one thread only.
    written_at: Mutex<Option<Instant>>,
}

/// Reasons for which a run can't take place here.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error(
        "can't {doing} {}: {source}. {what} must be a directory that the worker may write to",
        path.display()
    )]
    Unwritable {
        what: &'static str,
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{what} {} has {} bytes free, the run needs {needed} and {} must stay free. Free some or add space",
        path.display(), room.free_bytes, room.reserved_bytes
    )]
    NoRoom {
        what: &'static str,
        path: PathBuf,
        room: Room,
        needed: u64,
    },
}

const INSTANCES: &str = "the store of copies";
const IMAGES: &str = "the image store";

impl Stores {
    pub(crate) fn new(instances: PathBuf, images: PathBuf, reserve: Reserve) -> Self {
        Self {
            shared: Arc::new(Shared {
                instances,
                images,
                reserve,
                written_at: Mutex::default(),
            }),
        }
    }

    /// Returns true when both directories take writes.
    pub(crate) async fn take_writes(&self) -> bool {
        let shared = Arc::clone(&self.shared);
        let tried = tokio::task::spawn_blocking(move || shared.still_take_writes()).await;
        tried.unwrap_or(false)
    }

    /// Returns a failure where a run of this instance, whose disks use so many bytes, could not be copied or its image
    /// not be stored.
    pub(crate) async fn are_ready_for(
        &self,
        instance: &InstanceId,
        used_bytes: u64,
    ) -> Result<(), Failure> {
        let (shared, instance) = (Arc::clone(&self.shared), instance.clone());
        let checked = tokio::task::spawn_blocking(move || {
            shared.try_writes()?;
            shared.check_room(&instance, used_bytes)
        });
        let checked = checked.await.unwrap_or_else(|died| {
            Err(unwritable(INSTANCES, "check", &self.shared.instances)(
                io::Error::other(died),
            ))
        });
        checked.map_err(|error| error.failure())
    }
}

impl NotReady {
    fn failure(&self) -> Failure {
        // Paths are the operator's, and the sentence is the tenant's.
        tracing::error!(
            error = self as &dyn std::error::Error,
            "a run can't take place here"
        );
        let (code, what) = match self {
            Self::NoRoom {
                what, room, needed, ..
            } => (
                FailureCode::TargetFull,
                format!(
                    "{what} has {} bytes free, the run needs {needed} and {} must stay free",
                    room.free_bytes, room.reserved_bytes
                ),
            ),
            Self::Unwritable { what, source, .. } => (
                if is_full(source) {
                    FailureCode::TargetFull
                } else {
                    FailureCode::TargetUnwritable
                },
                format!("{what} takes no writes: {source}"),
            ),
        };
        let sentence = format!(
            "No copy was begun, since {what}. Tell the operator, and start the job again when that is mended."
        );
        Failure::new(code, sentence).with_cause(self.to_string())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn unwritable<'a>(
    what: &'static str,
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> NotReady + use<'a> {
    move |source| NotReady::Unwritable {
        what,
        doing,
        path: path.to_owned(),
        source,
    }
}

impl Shared {
    fn still_take_writes(&self) -> bool {
        let mut written_at = match self.written_at.try_lock() {
            Ok(written_at) => written_at,
            // The last try has not come back.
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => return false,
        };
        if written_at.is_some_and(|at| at.elapsed() < TRUSTED_FOR) {
            return true;
        }
        *written_at = None;
        match self.write_unnamed() {
            Ok(()) => {
                *written_at = Some(Instant::now());
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "this worker can't take runs"
                );
                false
            }
        }
    }

    fn try_writes(&self) -> Result<(), NotReady> {
        let _alone = self
            .written_at
            .lock()
            .expect("no holder of this lock can panic");
        self.attempt()
    }

    /// Writes and flushes a file in each store. The files have no name where the file system allows that, so readers of
    /// the stores see nothing of them.
    fn write_unnamed(&self) -> Result<(), NotReady> {
        for (what, directory) in [(INSTANCES, &self.instances), (IMAGES, &self.images)] {
            write_unnamed(directory).map_err(unwritable(what, "write in", directory))?;
        }
        Ok(())
    }

    /// Does in small what a receiver does. What an attempt that fell has left is taken away by the next one.
    fn attempt(&self) -> Result<(), NotReady> {
        // Workers may share both directories.
        let name = format!(".tried-by-{}", std::process::id());
        let file = self.instances.join(&name);
        let (made, place) = (
            self.images.join(format!("{name}.partial")),
            self.images.join(&name),
        );
        let clear = || {
            let _absent = fs::remove_file(&file);
            let _absent = fs::remove_dir_all(&made);
            let _absent = fs::remove_dir_all(&place);
        };
        clear();
        let tried = self.write(&file, &made, &place);
        clear();
        tried
    }

    fn write(&self, file: &Path, made: &Path, place: &Path) -> Result<(), NotReady> {
        write(file).map_err(unwritable(INSTANCES, "write", file))?;
        fs::create_dir(made).map_err(unwritable(IMAGES, "make", made))?;
        let second = made.join("disk");
        match fs::hard_link(file, &second) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => write(&second),
            linked => linked,
        }
        .map_err(unwritable(IMAGES, "write", &second))?;
        fs::rename(made, place).map_err(unwritable(IMAGES, "rename", made))?;
        File::open(&self.images)
            .and_then(|images| images.sync_all())
            .map_err(unwritable(IMAGES, "flush", &self.images))
    }

    /// The copy takes what the disks use, less what is copied already. The image takes as much for qcow2, and as much
    /// again for raw where that is no second name of the copy. Where use is not known, it counts as nothing: the
    /// receiver finds out then.
    fn check_room(&self, instance: &InstanceId, used_bytes: u64) -> Result<(), NotReady> {
        let copy =
            used_bytes.saturating_sub(stored_bytes(&[&self.instances.join(instance.as_str())]));
        let device = |what, path: &Path| {
            let found = fs::metadata(path).map_err(unwritable(what, "read", path))?;
            Ok(found.dev())
        };
        if device(INSTANCES, &self.instances)? == device(IMAGES, &self.images)? {
            return self.has(IMAGES, &self.images, copy + used_bytes + SPARE_BYTES);
        }
        self.has(INSTANCES, &self.instances, copy)?;
        self.has(IMAGES, &self.images, 2 * used_bytes + SPARE_BYTES)
    }

    fn has(&self, what: &'static str, path: &Path, needed: u64) -> Result<(), NotReady> {
        let room = self.reserve.room(path);
        let room = room.map_err(unwritable(what, "read the room of", path))?;
        if room.is_used_up() || room.usable_bytes() < needed {
            return Err(NotReady::NoRoom {
                what,
                path: path.to_owned(),
                room,
                needed,
            });
        }
        Ok(())
    }
}

fn write_unnamed(directory: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&[1; TRIED_BYTES])?;
    file.sync_all()
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(&[1; TRIED_BYTES])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["instances", "images"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
            Self { directory }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn stores(&self, reserve: Reserve) -> Stores {
            Stores::new(self.path("instances"), self.path("images"), reserve)
        }
    }

    async fn code(stores: &Stores, used_bytes: u64) -> Option<FailureCode> {
        let id = InstanceId::generate();
        let ready = stores.are_ready_for(&id, used_bytes).await;
        ready.err().map(|failure| failure.code)
    }

    #[tokio::test]
    async fn directories_that_take_writes_are_ready_and_keep_nothing_of_the_try() {
        let bench = Bench::new();
        let stores = bench.stores(Reserve::Bytes(0));
        assert_eq!(code(&stores, 1 << 20).await, None);
        assert!(stores.take_writes().await);
        for name in ["instances", "images"] {
            assert_eq!(fs::read_dir(bench.path(name)).unwrap().count(), 0, "{name}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_missing_or_none_is_found_before_the_copy() {
        for name in ["instances", "images"] {
            let bench = Bench::new();
            fs::remove_dir(bench.path(name)).unwrap();
            let stores = bench.stores(Reserve::Bytes(0));
            let missing = code(&stores, 0).await;
            assert_eq!(missing, Some(FailureCode::TargetUnwritable), "{name}");
            assert!(!stores.take_writes().await, "{name}");
            fs::write(bench.path(name), "").unwrap();
            let no_directory = code(&stores, 0).await;
            assert_eq!(no_directory, Some(FailureCode::TargetUnwritable), "{name}");
        }
    }

    #[tokio::test]
    async fn what_the_disks_use_and_the_reserve_must_fit() {
        let bench = Bench::new();
        let room = Reserve::Bytes(0).room(&bench.path("images")).unwrap();
        let plenty = bench.stores(Reserve::Bytes(0));
        assert_eq!(
            code(&plenty, 2 * room.free_bytes).await,
            Some(FailureCode::TargetFull)
        );
        let nothing_left = bench.stores(Reserve::Bytes(2 * room.free_bytes));
        assert_eq!(code(&nothing_left, 0).await, Some(FailureCode::TargetFull));
    }
}
