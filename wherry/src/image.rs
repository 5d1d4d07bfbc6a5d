//! `wherry image`: delivered images.

mod export;
mod qcow2;
mod verify;

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use domain::printable;
use service::ExitCode;
use smc::model::{self, DeleteImage, DescribeImages};

use crate::connection::Api;
use crate::output::{self, bytes, fields, table};
use export::Export;
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
    /// An image that was exported, or one disk, needs nothing else: no gateway and no key. With the image's name, the
    /// command also checks that the files are those of that image. Exit code 1 if anything differs.
    #[command(
        override_usage = "wherry image verify IMAGE [--path DIR]\n       wherry image verify --path DIR\n       wherry image verify --disk FILE --manifest FILE"
    )]
    Verify(Verify),
    /// Fetches an image into a directory, and checks every chunk of every disk against the root hash that the API has.
    ///
    /// A fetch that was cut off goes on where it was. A file that is in the directory already is kept if it is this
    /// image's, and else never replaced. qcow2 files are checked by qemu-img.
    Export(Export),
    /// Deletes an image and its disks.
    Delete {
        /// Its id or name.
        image: String,
    },
}

impl Image {
    /// Runs a command that needs neither gateway nor key; `None` if the command needs them.
    pub(crate) async fn run_alone(&self) -> Option<anyhow::Result<ExitCode>> {
        match self {
            Self::Verify(verify) => verify.of_files().await,
            _ => None,
        }
    }

    pub(crate) async fn run(self, api: &Api) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                let images = api.list(DescribeImages::default()).await?;
                api.show(&images, |images| list(images));
            }
            Self::Show { image } => {
                let mut image = find(api, &image).await?;
                locate(&mut image, api.image_store.as_deref());
                api.show(&image, show);
            }
            Self::Verify(verify) => verify.of_the_api(api).await?,
            Self::Export(export) => export.run(api).await?,
            Self::Delete { image } => {
                let image_id = find(api, &image).await?.image_id;
                let request = DeleteImage { image_id };
                let done = api.client.call(&request).await?;
                let id = printable(&request.image_id);
                api.show(&done, |_| format!("Image {id} is being deleted.\n"));
            }
        }
        Ok(ExitCode::Ok)
    }
}

async fn find(api: &Api, image: &str) -> anyhow::Result<model::Image> {
    let mut request = DescribeImages::default();
    if image.parse::<domain::ImageId>().is_ok() {
        request.image_id = Some(vec![image.to_owned()]);
    } else {
        request.name = Some(image.to_owned());
    }
    let found = api.list(request).await?;
    match found.into_iter().next() {
        Some(found) => Ok(found),
        None => bail!("there is no image {image:?}: `wherry image list` shows all"),
    }
}

/// Makes the image's location a path if the image store is on this machine: the API reveals no paths of its hosts to
/// tenants.
fn locate(image: &mut model::Image, image_store: Option<&Path>) {
    let id = image.image_id.parse::<domain::ImageId>();
    let (Ok(id), Some(image_store)) = (id, image_store) else {
        return;
    };
    let folder = image_store.join(id.as_str());
    if folder.is_dir() {
        image.location = Some(folder.display().to_string());
    }
}

/// `image.json` of an image, which the API passes on as text.
fn description(image: &model::Image) -> anyhow::Result<receiver::ImageDescription> {
    serde_json::from_str(&image.description).with_context(|| {
        format!(
            "image {} is not whole yet, or of a later version",
            printable(&image.image_id)
        )
    })
}

/// Checks the names of files: a description must not choose where this program reads and writes.
///
/// # Errors
/// Names of files that lead out of the image's directory, or that are given twice.
fn check_names(description: &receiver::ImageDescription) -> anyhow::Result<()> {
    let names = description
        .disks
        .iter()
        .flat_map(|disk| [&disk.raw, &disk.qcow2, &disk.manifest]);
    let mut seen = std::collections::HashSet::from(["image.json"]);
    for name in names {
        ensure!(
            domain::name::is_image_file(name) && seen.insert(name),
            "the image's description can't be trusted: it names a file {name:?}, which is no plain name of its own"
        );
    }
    Ok(())
}

fn list(images: &[model::Image]) -> String {
    if images.is_empty() {
        return "No images yet. A job that finishes delivers one.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            [
                &image.image_id,
                &image.name,
                &image.state,
                &image.job_id,
                &image.creation_time,
            ]
            .map(Clone::clone)
            .to_vec()
        })
        .collect();
    table(&["ID", "NAME", "STATE", "JOB", "CREATED"], &rows)
}

fn show(image: &model::Image) -> String {
    let sector = |bytes: Option<u32>| bytes.map(u64::from);
    let mut shown = fields(&[
        ("Id", image.image_id.clone()),
        ("Name", image.name.clone()),
        ("State", image.state.clone()),
        ("Job", image.job_id.clone()),
        ("Source", image.source_id.clone()),
        ("Created", image.creation_time.clone()),
        ("Location", image.location.clone().unwrap_or_default()),
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
                    output::sectors(
                        sector(disk.layout.logical_sector_bytes),
                        sector(disk.layout.physical_sector_bytes),
                    ),
                    disk.layout.partition_table.clone().unwrap_or_default(),
                    disk.root_hash.clone(),
                    match disk.unreadable_ranges {
                        0 => String::new(),
                        ranges => format!("{} in {ranges} ranges", bytes(disk.unreadable_bytes)),
                    },
                    disk.consistency.as_str().to_owned(),
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
                "SECTORS",
                "TABLE",
                "ROOT HASH (BLAKE3)",
                "UNREAD",
                "CONSISTENCY",
                "FILES",
            ],
            &rows,
        ));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_path_only_where_the_store_of_this_machine_has_the_image() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("m-1")).unwrap();
        let located = |id: &str, store: Option<&Path>| {
            let mut image = model::Image {
                image_id: id.to_owned(),
                location: Some(id.to_owned()),
                ..model::Image::default()
            };
            locate(&mut image, store);
            image.location.unwrap_or_default()
        };
        let path = store.path().join("m-1").display().to_string();
        assert_eq!(located("m-1", Some(store.path())), path);
        for (id, store) in [
            ("m-1", None),
            ("m-2", Some(store.path())),
            ("..", Some(store.path())),
        ] {
            assert_eq!(located(id, store), id);
        }
    }
}
