//! Builds one image.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use domain::{Clock as _, Failure, FailureCode, ImageId, JobId};
use tokio::io::AsyncReadExt as _;
use transfer::disk::Reserve;
use transfer::receiver::Proven;

use super::{ImageDescription, ImageDisk, Order};

/// Free space that must remain after an image is built.
const SPARE_BYTES: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(
        "the image store {store} has {free} bytes free, the image may need {needed}. Free some or add space, then start the job again; what was \
         copied is kept"
    )]
    NoRoom {
        store: String,
        free: u64,
        needed: u64,
    },
    #[error("can't {doing} {path}: {source}")]
    File {
        doing: &'static str,
        path: String,
        source: io::Error,
    },
    #[error(
        "can't run {program}: {source}. Install it (Debian: apt install qemu-utils) or name it with WHERRY_QEMU_IMG"
    )]
    NoQemuImg { program: String, source: io::Error },
    #[error("qemu-img could not make {path}: {message}")]
    QemuImg { path: String, message: String },
    #[error(
        "{path} is in the way: {why}. It was left as it is. Move it out of the image store, then start the job again; what was copied is kept"
    )]
    NotOurs { path: String, why: String },
    #[error(
        "the image store became full while {path} was written. Free some or add space, then start the job again; what was copied is kept"
    )]
    Filled { path: String },
}

impl BuildError {
    /// Returns the failure. The tenant reads it without the operator's paths and the output of programs, which are in
    /// its cause.
    pub(super) fn failure(&self) -> Failure {
        let code = match self {
            Self::NoRoom { .. } | Self::Filled { .. } => FailureCode::TargetFull,
            Self::File { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                FailureCode::TargetFull
            }
            Self::File { .. } => FailureCode::TargetUnwritable,
            Self::NotOurs { .. } | Self::NoQemuImg { .. } | Self::QemuImg { .. } => {
                FailureCode::ImageFailed
            }
        };
        Failure::new(
            code,
            format!("The image can't be made: {}.", self.for_tenant()),
        )
        .with_cause(self.to_string())
    }

    fn for_tenant(&self) -> String {
        match self {
            Self::NoRoom { free, needed, .. } => format!(
                "the image store has {free} bytes free, the image may need {needed}. Tell the operator, then start the job again; what was \
                 copied is kept"
            ),
            Self::File { doing, source, .. } => {
                format!("can't {doing} a file of it: {}", source.kind())
            }
            Self::NotOurs { .. } => {
                "something is in the way in the image store, and the cause in the operator's history names it. Tell the operator. Move it out of the image store, then start the \
                 job again; what was copied is kept"
                    .to_owned()
            }
            Self::NoQemuImg { .. } => {
                "the program that makes it can't be run. Tell the operator, then start the job again".to_owned()
            }
            Self::QemuImg { .. } => {
                "the program that makes it failed. Tell the operator, then start the job again".to_owned()
            }
            Self::Filled { .. } => {
                "the image store became full while it was written. The operator must free some or add space; then start the job again: what was copied is \
                 kept"
                    .to_owned()
            }
        }
    }
}

/// Directory in which an image is made before it is published.
pub(super) fn partial(store: &Path, image_id: &ImageId) -> PathBuf {
    store.join(format!("{image_id}.partial"))
}

/// Builds the image. Returns its location and its description as JSON. A failed build leaves nothing behind.
pub(super) async fn build(
    store: &Path,
    qemu_img: &Path,
    reserve: Reserve,
    order: Order,
    tell: impl FnMut(f64) + Send,
) -> Result<(String, String), BuildError> {
    let partial = partial(store, &order.image_id);
    let (image_id, job_id) = (order.image_id.clone(), order.job_id.clone());
    let made = make(store, &partial, qemu_img, reserve, order, tell).await;
    if made.is_err()
        && let Err(error) = clear_partial(&partial, &image_id, &job_id)
    {
        tracing::warn!(%error, "what was made of the image stays until the image's row goes");
    }
    made
}

async fn make(
    store: &Path,
    partial: &Path,
    qemu_img: &Path,
    reserve: Reserve,
    order: Order,
    mut tell: impl FnMut(f64) + Send,
) -> Result<(String, String), BuildError> {
    let location = store.join(order.image_id.as_str());
    if let Some(found) = found(&location, &order.image_id, &order.job_id)? {
        if is_of(&found, &order) {
            let text = std::fs::read_to_string(location.join("image.json"))
                .map_err(failed("read", &location))?;
            return Ok((location.display().to_string(), text));
        }
        // The disks have changed since. The raw files are hard links to them, so this directory is no longer one image.
        // It was not reported to anyone yet: otherwise the order would not have come again.
        clear(&location)?;
    }
    // Before the free space is measured: the files of a failed attempt free space for this one.
    clear_partial(partial, &order.image_id, &order.job_id)?;
    check_room(store, reserve, &order)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(partial)
        .map_err(failed("make", partial))?;

    let count = order.disks.len() as f64;
    let mut disks = Vec::new();
    for (number, (disk, path, proven)) in order.disks.iter().enumerate() {
        let unreadable = proven.unreadable().map_err(failed("read", path))?;
        let made = ImageDisk {
            index: disk.index.0,
            size_bytes: disk.target_bytes,
            source_bytes: proven.receipt().size_bytes(),
            layout: order.layouts.get(&disk.index).cloned().unwrap_or_default(),
            root_hash: proven.receipt().root_hex(),
            chunk_bytes: proven.chunk_bytes(),
            unreadable_ranges: unreadable.len() as u64,
            unreadable_bytes: chunks::unreadable::bytes(&unreadable),
            consistency: proven.receipt().moment(),
            raw: format!("disk-{}.raw", disk.index),
            qcow2: format!("disk-{}.qcow2", disk.index),
            manifest: format!("disk-{}.manifest", disk.index),
        };
        let manifest_path = partial.join(&made.manifest);
        write_manifest(proven.clone(), manifest_path.clone())
            .await
            .map_err(failed("write", &manifest_path))?;
        let whole = |fraction: f64| (number as f64 + fraction) / count;
        convert(qemu_img, path, &partial.join(&made.qcow2), |fraction| {
            tell(whole(fraction))
        })
        .await?;
        place(path, &partial.join(&made.raw)).await?;
        disks.push(made);
    }
    let description = ImageDescription {
        image_id: order.image_id.to_string(),
        name: order.image_name,
        job_id: order.job_id.to_string(),
        source_id: order.source_id.to_string(),
        created: domain::clock::SystemClock.now().to_string(),
        disks,
    };
    let text = serde_json::to_string_pretty(&description)
        .expect("a struct of strings and integers has a JSON form");
    // Renamed when it is complete: an unreadable description would block the next attempt.
    let (new, written) = (partial.join("image.json.new"), partial.join("image.json"));
    private_file(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&new, &written))
        .map_err(failed("write", &written))?;
    let (store, from, to) = (store.to_owned(), partial.to_owned(), location.clone());
    let published = tokio::task::spawn_blocking(move || {
        open_to_group(&store, &from)?;
        publish(&from, &to)
    })
    .await;
    published
        .unwrap_or_else(|died| Err(io::Error::other(died)))
        .map_err(failed("publish", &location))?;
    Ok((location.display().to_string(), text))
}

/// Creates a file that only this account may read: an image is made from a server's disk.
fn private_file(path: &Path) -> io::Result<File> {
    File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

async fn write_manifest(proven: Proven, path: PathBuf) -> io::Result<()> {
    let writing = tokio::task::spawn_blocking(move || {
        let file = private_file(&path)?;
        proven.write_manifest(io::BufWriter::new(file))
    });
    writing
        .await
        .unwrap_or_else(|died| Err(io::Error::other(died)))
}

/// Returns the description of the image in a directory; `None` if the directory does not exist.
///
/// # Errors
/// [`BuildError::NotOurs`] if it is not this image of this job, or if that can't be determined.
fn found(
    directory: &Path,
    image_id: &ImageId,
    job_id: &JobId,
) -> Result<Option<ImageDescription>, BuildError> {
    match std::fs::symlink_metadata(directory) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", directory)(error)),
    }
    let not_ours = |why: String| BuildError::NotOurs {
        path: directory.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(directory.join("image.json"))
        .map_err(|error| not_ours(format!("its image.json can't be read ({error})")))?;
    let found: ImageDescription = serde_json::from_str(&text)
        .map_err(|_| not_ours("its image.json describes no image".to_owned()))?;
    if found.image_id != image_id.as_str() || found.job_id != job_id.as_str() {
        return Err(not_ours("it is the image of another job".to_owned()));
    }
    Ok(Some(found))
}

/// Removes the files of an attempt of this job. They have no description until they are almost complete.
fn clear_partial(partial: &Path, image_id: &ImageId, job_id: &JobId) -> Result<(), BuildError> {
    if std::fs::symlink_metadata(partial.join("image.json")).is_ok() {
        found(partial, image_id, job_id)?;
    }
    clear(partial)
}

/// Returns true if an image in the store is the one that the order would build.
fn is_of(found: &ImageDescription, order: &Order) -> bool {
    let found = found
        .disks
        .iter()
        .map(|disk| (disk.index, disk.size_bytes, disk.root_hash.clone()));
    let asked = order
        .disks
        .iter()
        .map(|(disk, _, proven)| (disk.index.0, disk.target_bytes, proven.receipt().root_hex()));
    found.eq(asked)
}

fn clear(directory: &Path) -> Result<(), BuildError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("clear", directory)(error))
        }
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> BuildError + use<> {
    let path = path.display().to_string();
    move |source| BuildError::File {
        doing,
        path: path.clone(),
        source,
    }
}

/// Fails if the store has too little free space. The qcow2 files need as much as the disks' contents. The raw files
/// need as much again if they can't be links.
fn check_room(store: &Path, reserve: Reserve, order: &Order) -> Result<(), BuildError> {
    let room = reserve.room(store).map_err(failed("look at", store))?;
    let store_device = std::fs::metadata(store)
        .map_err(failed("look at", store))?
        .dev();
    let mut needed = SPARE_BYTES + room.reserved_bytes;
    for (_, path, _) in &order.disks {
        let metadata = std::fs::metadata(path).map_err(failed("look at", path))?;
        let held = metadata.blocks() * 512;
        needed += if metadata.dev() == store_device {
            held
        } else {
            2 * held
        };
    }
    if room.free_bytes < needed {
        return Err(BuildError::NoRoom {
            store: store.display().to_string(),
            free: room.free_bytes,
            needed,
        });
    }
    Ok(())
}

/// Places the raw disk: a hard link if the store is on the same file system, otherwise a sparse copy.
async fn place(disk: &Path, to: &Path) -> Result<(), BuildError> {
    match std::fs::hard_link(disk, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let copied = tokio::process::Command::new("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .arg(disk)
                .arg(to)
                .env("LC_ALL", "C")
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .map_err(failed("copy", to))?;
            if copied.status.success() {
                Ok(())
            } else {
                let message = String::from_utf8_lossy(&copied.stderr).trim().to_owned();
                Err(if is_full(&message) {
                    filled(to)
                } else {
                    failed("copy", to)(io::Error::other(message))
                })
            }
        }
        Err(error) => Err(failed("link", to)(error)),
    }
}

/// Runs qemu-img, which prints its progress as `(12.34/100%)`.
async fn convert(
    qemu_img: &Path,
    disk: &Path,
    to: &Path,
    mut tell: impl FnMut(f64),
) -> Result<(), BuildError> {
    // qemu-img writes into an existing file, and keeps its mode.
    private_file(to).map_err(failed("make", to))?;
    let mut child = tokio::process::Command::new(qemu_img)
        .args(["convert", "-p", "-f", "raw", "-O", "qcow2"])
        .arg(disk)
        .arg(to)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| BuildError::NoQemuImg {
            program: qemu_img.display().to_string(),
            source,
        })?;
    let mut output = child.stdout.take().expect("standard output was asked for");
    let mut errors = child.stderr.take().expect("standard error was asked for");
    let reading_errors = tokio::spawn(async move {
        let mut text = String::new();
        // Unreadable output is not shown; the exit code decides.
        let _unreadable = errors.read_to_string(&mut text).await;
        text
    });
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        if let Some(fraction) = last_percentage(&buffer[..length]) {
            tell(fraction);
        }
    }
    let status = child.wait().await.map_err(failed("wait for", qemu_img))?;
    let message = reading_errors.await.unwrap_or_default();
    if status.success() {
        Ok(())
    } else if is_full(&message) {
        Err(filled(to))
    } else {
        Err(BuildError::QemuImg {
            path: to.display().to_string(),
            message: message.trim().to_owned(),
        })
    }
}

/// Returns true if a program's message reports that the disk is full. The exit code does not show that. The program
/// runs with `LC_ALL` set to C.
fn is_full(message: &str) -> bool {
    [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT]
        .into_iter()
        .any(|errno| {
            let text = io::Error::from(errno).to_string();
            // Rust appends the number to the text of the C library.
            text.split(" (os error")
                .next()
                .is_some_and(|text| message.contains(text))
        })
}

fn filled(path: &Path) -> BuildError {
    BuildError::Filled {
        path: path.display().to_string(),
    }
}

fn last_percentage(output: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(output).ok()?;
    let number = text.rsplit_once('(')?.1.split_once('/')?.0;
    Some(number.trim().parse::<f64>().ok()? / 100.0)
}

/// Makes the image readable for the store's group, if the operator has made the store readable for it. A gateway that
/// runs as another user than the worker needs that to serve downloads.
fn open_to_group(store: &Path, partial: &Path) -> io::Result<()> {
    let found = std::fs::metadata(store)?;
    // A store that everybody may read was not meant for a group.
    if found.mode() & 0o057 != 0o050 {
        return Ok(());
    }
    let group = Some(found.gid());
    for entry in std::fs::read_dir(partial)? {
        let path = entry?.path();
        chown(&path, None, group)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o640))?;
    }
    chown(partial, None, group)?;
    std::fs::set_permissions(partial, Permissions::from_mode(0o750))
}

/// Flushes everything and renames the directory to its final name.
fn publish(partial: &Path, location: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(partial)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(partial)?.sync_all()?;
    std::fs::rename(partial, location)?;
    let store: PathBuf = location
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned);
    File::open(store)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_from_what_a_program_prints() {
        assert!(is_full(
            "qemu-img: error while writing at byte 0: No space left on device"
        ));
        assert!(is_full("cp: error writing 'x': Disk quota exceeded"));
        assert!(!is_full("qemu-img: Could not open 'x': Permission denied"));
    }

    #[test]
    fn an_image_is_its_owner_s_unless_the_store_is_a_group_s() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        for (store_mode, directory_mode, file_mode) in [
            (0o700, 0o700, 0o600),
            (0o755, 0o700, 0o600),
            (0o750, 0o750, 0o640),
        ] {
            let store = root.path().join(format!("{store_mode:o}"));
            let image = store.join("image");
            std::fs::create_dir_all(&image).unwrap();
            std::fs::set_permissions(&image, Permissions::from_mode(0o700)).unwrap();
            std::fs::set_permissions(&store, Permissions::from_mode(store_mode)).unwrap();
            private_file(&image.join("disk")).unwrap();
            open_to_group(&store, &image).unwrap();
            assert_eq!(mode(&image), directory_mode, "{store_mode:o}");
            assert_eq!(mode(&image.join("disk")), file_mode, "{store_mode:o}");
        }
    }

    #[test]
    fn what_a_tenant_reads_of_a_failed_image_has_no_path_and_no_output_of_a_program() {
        let path = || "/srv/images/m-1".to_owned();
        let source = || io::Error::other("/srv/secret");
        for error in [
            BuildError::NoRoom {
                store: path(),
                free: 1,
                needed: 2,
            },
            BuildError::File {
                doing: "write",
                path: path(),
                source: source(),
            },
            BuildError::NotOurs {
                path: path(),
                why: "/srv".to_owned(),
            },
            BuildError::NoQemuImg {
                program: path(),
                source: source(),
            },
            BuildError::QemuImg {
                path: path(),
                message: "Could not open '/srv/images'".to_owned(),
            },
            BuildError::Filled { path: path() },
        ] {
            let Failure { message, cause, .. } = error.failure();
            assert!(
                !message.contains('/') && !message.contains("Could"),
                "{message}"
            );
            assert!(cause.contains("/srv"), "the operator reads it: {cause}");
        }
    }

    #[test]
    fn progress_is_read_from_what_qemu_img_prints() {
        assert_eq!(
            last_percentage(b"    (0.00/100%)\r    (12.50/100%)\r"),
            Some(0.125)
        );
        assert_eq!(last_percentage(b""), None);
        assert_eq!(last_percentage(b"(abc/100%)"), None);
    }
}
