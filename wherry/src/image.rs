//! `wherry image`: delivered images.

mod verify;

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use service::ExitCode;

use crate::connection::Api;
use crate::output::{bytes, fields, line, raw, table, text};
use verify::Verify;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Lists all images, newest first.
    List,
    /// Shows one image: its disks, their root hashes, and where they lie.
    Show {
        /// Its id or name.
        image: String,
    },
    /// Checks every chunk of every disk against the manifests.
    ///
    /// Of an image that was exported, or of one disk, nothing else is needed: no gateway and no key. With the image's name it is also checked that the files are
    /// those of that image. Exit code 1 if anything differs.
    #[command(
        override_usage = "wherry image verify IMAGE [--path DIR]\n       wherry image verify --path DIR\n       wherry image verify --disk FILE --manifest FILE"
    )]
    Verify(Verify),
    /// Fetches an image into a directory. A fetch that was cut off goes on where it was.
    Export {
        /// Its id or name.
        image: String,
        /// Directory; made if it is not there.
        #[arg(long)]
        to: PathBuf,
        /// Which form of the disks.
        #[arg(long, value_enum, default_value_t = Format::Qcow2)]
        format: Format,
    },
    /// Deletes an image and its disks.
    Delete {
        /// Its id or name.
        image: String,
    },
}

/// A form of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Byte for byte.
    Raw,
    /// Only what is used.
    Qcow2,
}

const LIST: (&str, &str) = ("Images", "Image");

impl Image {
    /// What needs neither gateway nor key; `None` if it needs them.
    pub(crate) async fn run_alone(&self) -> Option<anyhow::Result<ExitCode>> {
        match self {
            Self::Verify(verify) => verify.of_files().await,
            _ => None,
        }
    }

    pub(crate) async fn run(self, api: &Api) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                let images = api.list("DescribeImages", LIST, &[]).await?;
                api.show(&Value::from(images), |images| {
                    list(images.as_array().map_or(&[], Vec::as_slice))
                });
            }
            Self::Show { image } => {
                let image = find(api, &image).await?;
                api.show(&image, show);
            }
            Self::Verify(verify) => verify.of_the_api(api).await?,
            Self::Export { image, to, format } => export(api, &image, &to, format).await?,
            Self::Delete { image } => {
                let id = text(&find(api, &image).await?, "ImageId");
                let answer = api
                    .client
                    .call("DeleteImage", &[("ImageId", id.as_str())])
                    .await?;
                api.show(&answer, |_| format!("Image {id} is being deleted.\n"));
            }
        }
        Ok(ExitCode::Ok)
    }
}

async fn find(api: &Api, image: &str) -> anyhow::Result<Value> {
    let by = if image.parse::<domain::ImageId>().is_ok() {
        "ImageId.1"
    } else {
        "Name"
    };
    let found = api
        .list("DescribeImages", LIST, &[(by.to_owned(), image.to_owned())])
        .await?;
    match found.into_iter().next() {
        Some(found) => Ok(found),
        None => bail!("there is no image {image:?}: `wherry image list` shows all"),
    }
}

/// `image.json` of an image, which the API passes on as text.
fn description(image: &Value) -> anyhow::Result<receiver::ImageDescription> {
    serde_json::from_str(&raw(image, "Description")).with_context(|| {
        format!(
            "image {} is not whole yet, or of a later version",
            text(image, "ImageId")
        )
    })
}

fn list(images: &[Value]) -> String {
    if images.is_empty() {
        return "No images yet. A job that finishes delivers one.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            ["ImageId", "Name", "State", "JobId", "CreationTime"]
                .iter()
                .map(|field| text(image, field))
                .collect()
        })
        .collect();
    table(&["ID", "NAME", "STATE", "JOB", "CREATED"], &rows)
}

fn show(image: &Value) -> String {
    let mut shown = fields(&[
        ("Id", text(image, "ImageId")),
        ("Name", text(image, "Name")),
        ("State", text(image, "State")),
        ("Job", text(image, "JobId")),
        ("Source", text(image, "SourceId")),
        ("Created", text(image, "CreationTime")),
        ("Location", text(image, "Location")),
    ]);
    if let Ok(description) = description(image) {
        let rows: Vec<Vec<String>> = description
            .disks
            .iter()
            .map(|disk| {
                vec![
                    disk.index.to_string(),
                    bytes(disk.size_bytes),
                    bytes(disk.source_bytes),
                    disk.root_hash.clone(),
                    match disk.bad_ranges {
                        0 => String::new(),
                        ranges => format!("{} in {ranges} ranges", bytes(disk.bad_bytes)),
                    },
                    format!("{}, {}", disk.raw, disk.qcow2),
                ]
            })
            .collect();
        shown.push('\n');
        shown.push_str(&table(
            &[
                "DISK",
                "SIZE",
                "OF THE SOURCE",
                "ROOT HASH (BLAKE3)",
                "UNREAD",
                "FILES",
            ],
            &rows,
        ));
    }
    shown
}

async fn export(api: &Api, image: &str, to: &Path, format: Format) -> anyhow::Result<()> {
    let image = find(api, image).await?;
    let description = description(&image)?;
    std::fs::create_dir_all(to).with_context(|| format!("can't make {}", to.display()))?;
    let id = &description.image_id;
    for disk in &description.disks {
        let file = match format {
            Format::Raw => &disk.raw,
            Format::Qcow2 => &disk.qcow2,
        };
        fetch(api, id, &disk.manifest, &to.join(&disk.manifest)).await?;
        fetch(api, id, file, &to.join(file)).await?;
        if format == Format::Raw {
            let (raw, manifest) = (to.join(&disk.raw), to.join(&disk.manifest));
            tokio::task::spawn_blocking(move || transfer::manifest::verify(&raw, &manifest))
                .await??;
        }
        line(to.join(file).display());
    }
    std::fs::write(to.join("image.json"), raw(&image, "Description"))?;
    Ok(())
}

/// Fetches one file, going on behind what is there. Blocks of zeros are left out: the file is as sparse as its disk.
///
/// What is not whole yet lies under a name with the image's id, so that two images exported to one directory never mix. Its last byte is
/// fetched again: a file that was whole but not renamed yet has nothing behind its end that could be asked for.
async fn fetch(api: &Api, image_id: &str, name: &str, to: &Path) -> anyhow::Result<()> {
    let partial = PathBuf::from(format!("{}.{image_id}.partial", to.display()));
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&partial)
        .with_context(|| format!("can't write {}", partial.display()))?;
    let mut length = file.metadata()?.len().saturating_sub(1);
    file.seek(SeekFrom::Start(length))?;
    let mut download = api
        .client
        .download(
            "DownloadImage",
            &[("ImageId", image_id), ("File", name)],
            length,
        )
        .await?;
    while let Some(chunk) = download.chunk().await? {
        for block in chunk.chunks(4096) {
            if block.iter().any(|&byte| byte != 0) {
                file.write_all(block)?;
            } else {
                file.seek_relative(i64::try_from(block.len())?)?;
            }
            length += block.len() as u64;
        }
    }
    file.set_len(length)?;
    file.sync_all()?;
    std::fs::rename(&partial, to)?;
    Ok(())
}
