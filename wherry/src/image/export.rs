//! `wherry image export`: an image's files, from the API into a directory.
//!
//! The server may be a false one, and the store may be another than before. So no name of a file leads out of the
//! directory, and nothing that is there already is replaced. A file gets its name only when its content has the root
//! hash that the API's answer gives. No more bytes are taken than a file of such a disk can have, and some room is left
//! in the directory's file system.

use std::fs::{DirBuilder, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use domain::ImageId;
use receiver::{ImageDescription, ImageDisk};
use smc::model::DownloadImage;
use transfer::manifest::{self, Head};

use super::{check_names, description, find, qcow2};
use crate::connection::Api;
use crate::output::line;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Its id or name.
    image: String,
    /// Directory; made if it is not there.
    #[arg(long)]
    to: PathBuf,
    /// Format of the disks.
    #[arg(long, value_enum, default_value_t = Format::Qcow2)]
    format: Format,
    /// Program that reads qcow2 files.
    #[arg(long, env = "WHERRY_QEMU_IMG", default_value = "qemu-img")]
    qemu_img: PathBuf,
}

/// Bytes that stay free where the files are written, and the bytes after which the free space is checked again. A
/// description may name any size.
const LEFT_FREE: u64 = 1 << 30;
const LOOK_EVERY: u64 = 64 << 20;

/// A form of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Byte for byte.
    Raw,
    /// Only what is used.
    Qcow2,
}

impl Export {
    pub(super) async fn run(self, api: &Api) -> anyhow::Result<()> {
        let image = find(api, &self.image).await?;
        let described = description(&image)?;
        check_names(&described)?;
        let id: ImageId = described
            .image_id
            .parse()
            .context("the image's description can't be trusted")?;
        if self.format == Format::Qcow2 {
            qcow2::check_program(&self.qemu_img)?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.to)
            .with_context(|| format!("can't make {}", self.to.display()))?;
        let about = self.to.join("image.json");
        check_directory(&about, &id)?;
        for disk in &described.disks {
            let fetched = Fetched::new(&self, &id, disk);
            fetched.fetch(api).await?;
            line(fetched.file.display());
        }
        File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(about)?
            .write_all(image.description.as_bytes())?;
        Ok(())
    }
}

/// The directory holds no other image.
fn check_directory(about: &Path, id: &ImageId) -> anyhow::Result<()> {
    if !is_there(about) {
        return Ok(());
    }
    let text = std::fs::read_to_string(about);
    let found = text.map(|text| serde_json::from_str::<ImageDescription>(&text));
    ensure!(
        matches!(&found, Ok(Ok(found)) if found.image_id == id.as_str()),
        "{} is there already, and not of this image: give another directory with --to",
        about.display()
    );
    Ok(())
}

/// Also for a link to nothing.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// One disk on its way into the directory.
#[derive(Debug, Clone)]
struct Fetched {
    image_id: ImageId,
    disk: ImageDisk,
    format: Format,
    qemu_img: PathBuf,
    name: String,
    file: PathBuf,
    manifest: PathBuf,
}

impl Fetched {
    fn new(export: &Export, image_id: &ImageId, disk: &ImageDisk) -> Self {
        let name = match export.format {
            Format::Raw => &disk.raw,
            Format::Qcow2 => &disk.qcow2,
        };
        Self {
            image_id: image_id.clone(),
            format: export.format,
            qemu_img: export.qemu_img.clone(),
            name: name.clone(),
            file: export.to.join(name),
            manifest: export.to.join(&disk.manifest),
            disk: disk.clone(),
        }
    }

    async fn fetch(&self, api: &Api) -> anyhow::Result<()> {
        let disk = &self.disk;
        let manifest_bytes = manifest::most_bytes(disk.source_bytes, disk.chunk_bytes);
        let manifest = self
            .obtain(api, &disk.manifest, &self.manifest, manifest_bytes)
            .await?;
        let bytes = match self.format {
            Format::Raw => disk.size_bytes,
            Format::Qcow2 => domain::disk::most_file_bytes(disk.size_bytes),
        };
        let file = self.obtain(api, &self.name, &self.file, bytes).await?;
        let checking = self.clone();
        let (of_file, of_manifest) = (file.clone(), manifest.clone());
        let checked =
            tokio::task::spawn_blocking(move || checking.check(&of_file, &of_manifest)).await?;
        for (from, to) in [(&manifest, &self.manifest), (&file, &self.file)] {
            if from == to {
                continue;
            }
            // A file that is not the image's is not continued the next time.
            match &checked {
                Ok(()) => std::fs::rename(from, to)?,
                Err(_) => std::fs::remove_file(from)?,
            }
        }
        checked.with_context(|| {
            format!(
                "disk {} is not what image {} has. What came was removed; what was in the directory before was left. Give another directory \
                 with --to, or tell the operator",
                self.disk.index, self.image_id
            )
        })
    }

    /// Returns the current path of a file of the image: its own name if it was there before, else the name of a file
    /// that is not checked yet. It has at most `most` bytes.
    async fn obtain(&self, api: &Api, name: &str, to: &Path, most: u64) -> anyhow::Result<PathBuf> {
        if is_there(to) {
            return Ok(to.to_owned());
        }
        let partial = PathBuf::from(format!("{}.{}.partial", to.display(), self.image_id));
        let ended = fetch(api, &self.image_id, name, &partial, most).await?;
        if ended == Ended::TooLong {
            std::fs::remove_file(&partial)?;
            bail!(
                "the server sends more for {name} than the {most} bytes that a file of this disk can have: what came \
                 was removed. Tell the operator"
            );
        }
        Ok(partial)
    }

    fn check(&self, file: &Path, manifest: &Path) -> anyhow::Result<()> {
        let head: Head = match self.format {
            Format::Raw => manifest::verify(file, manifest)?,
            Format::Qcow2 => {
                let content = qcow2::Content::open(&self.qemu_img, file, self.disk.size_bytes)?;
                manifest::verify_content(content, file, manifest)?
            }
        };
        let (found, expected) = (head.root_hex(), &self.disk.root_hash);
        ensure!(
            found == *expected && head.size_bytes == self.disk.source_bytes,
            "{} has the root hash {found}, and the API says {expected}",
            file.display()
        );
        Ok(())
    }
}

/// Outcome of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    /// The server had more than it may have.
    TooLong,
}

/// Fetches one file of at most `most` bytes, going on behind the bytes that are there. Blocks of zeros are left out:
/// the file is as sparse as its disk.
///
/// A file that is not checked yet has a name with the image's id, so that two images exported to one directory never
/// mix. Its last byte is fetched again: a file that was whole but not renamed yet has nothing behind its end that could
/// be requested.
async fn fetch(
    api: &Api,
    image_id: &ImageId,
    name: &str,
    partial: &Path,
    most: u64,
) -> anyhow::Result<Ended> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(partial)
        .with_context(|| format!("can't write {}", partial.display()))?;
    let mut length = file.metadata()?.len().saturating_sub(1);
    file.seek(SeekFrom::Start(length))?;
    let request = DownloadImage {
        image_id: image_id.to_string(),
        file: name.to_owned(),
    };
    let mut download = api.client.download(&request, length).await?;
    let mut written = 0;
    while let Some(chunk) = download.chunk().await? {
        if length + chunk.len() as u64 > most {
            return Ok(Ended::TooLong);
        }
        for block in chunk.chunks(4096) {
            if block.iter().any(|&byte| byte != 0) {
                file.write_all(block)?;
                written += block.len() as u64;
            } else {
                file.seek_relative(i64::try_from(block.len())?)?;
            }
            length += block.len() as u64;
        }
        if written >= LOOK_EVERY {
            written = 0;
            // Else the next try would not go on behind it.
            file.set_len(length)?;
            check_room(&file, partial)?;
        }
    }
    file.set_len(length)?;
    file.sync_all()?;
    Ok(Ended::Whole)
}

/// Checks that some room is left for other users of the file system.
fn check_room(file: &File, path: &Path) -> anyhow::Result<()> {
    let found = rustix::fs::fstatvfs(file)?;
    ensure!(
        found.f_bavail.saturating_mul(found.f_frsize) >= LEFT_FREE,
        "less than 1 GiB is free where {} is written: make room and export again, which goes on from here, or give a \
         directory with more room with --to",
        path.display()
    );
    Ok(())
}
