//! `wherry image verify`: disks beside their manifests.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use chunks::ByteRange;
use clap::Args;
use receiver::ImageDescription;
use service::ExitCode;

use super::{check_names, description, find};
use crate::connection::Api;
use crate::output::{bytes, line, lines};

/// Ranges that are listed at most.
const LISTED: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Its id or name.
    #[arg(required_unless_present_any = ["path", "disk"], conflicts_with = "disk")]
    image: Option<String>,
    /// Directory with the image, as it was exported or as the store has it. Without it, the image is looked for in
    /// --image-store.
    #[arg(long, value_name = "DIR", conflicts_with = "disk")]
    path: Option<PathBuf>,
    /// Directory of the image store, on the machine where the worker has it; else that of the bootstrap file or
    /// profile.
    #[arg(long, env = "WHERRY_IMAGE_STORE", value_name = "DIR")]
    image_store: Option<PathBuf>,
    /// One disk, a raw file or a block device.
    #[arg(long, value_name = "FILE", requires = "manifest")]
    disk: Option<PathBuf>,
    /// Its manifest.
    #[arg(long, value_name = "FILE", requires = "disk")]
    manifest: Option<PathBuf>,
}

impl Verify {
    /// Checks files with nothing else at hand; `None` if an image was named.
    pub(super) async fn of_files(&self) -> Option<anyhow::Result<ExitCode>> {
        let checked = match self {
            Self {
                disk: Some(disk),
                manifest: Some(manifest),
                ..
            } => check("the disk", disk, manifest, None).await,
            Self {
                image: None,
                path: Some(folder),
                ..
            } => check_folder(folder).await,
            _ => return None,
        };
        Some(checked.map(|()| ExitCode::Ok))
    }

    /// Checks an image that the API describes.
    pub(super) async fn of_the_api(self, api: &Api) -> anyhow::Result<()> {
        let image = find(api, &self.image.unwrap_or_default()).await?;
        let description = description(&image)?;
        let image_store = self.image_store.or_else(|| api.image_store.clone());
        // A false server must not lead out of the store.
        let id: domain::ImageId = image.image_id.parse()?;
        let folder = self
            .path
            .or_else(|| Some(image_store?.join(id.as_str())))
            .filter(|folder| folder.is_dir())
            .with_context(|| {
                format!(
                    "the image's files are not here: name the directory that has {id} with --image-store, or fetch it with \
                     `wherry image export {id} --format raw --to DIR` and give --path DIR"
                )
            })?;
        check_all(&folder, &description).await
    }
}

async fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("image.json");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "can't read {}: {} is no image, or was not exported to its end. `--disk FILE --manifest FILE` checks one disk",
            path.display(),
            folder.display()
        )
    })?;
    let description = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} does not describe an image, or one of a later version",
            path.display()
        )
    })?;
    check_all(folder, &description).await
}

async fn check_all(folder: &Path, description: &ImageDescription) -> anyhow::Result<()> {
    check_names(description)?;
    for disk in &description.disks {
        let (raw, manifest) = (folder.join(&disk.raw), folder.join(&disk.manifest));
        ensure!(
            raw.exists() || !folder.join(&disk.qcow2).exists(),
            "{} has disk {} only as {}, and a manifest is over the bytes as they are: export it with --format raw, or unpack it with \
             `qemu-img convert -f qcow2 -O raw {} FILE` and check that with --disk FILE --manifest {}",
            folder.display(),
            disk.index,
            disk.qcow2,
            disk.qcow2,
            manifest.display()
        );
        let name = format!("disk {}", disk.index);
        let root = Some((disk.root_hash.as_str(), description.image_id.as_str()));
        check(&name, &raw, &manifest, root).await?;
    }
    Ok(())
}

/// Checks one disk, and that its manifest has the image's root.
async fn check(
    name: &str,
    disk: &Path,
    manifest: &Path,
    expected: Option<(&str, &str)>,
) -> anyhow::Result<()> {
    let (of_disk, of_manifest) = (disk.to_owned(), manifest.to_owned());
    let checking = move || transfer::manifest::verify(&of_disk, &of_manifest);
    let head = tokio::task::spawn_blocking(checking)
        .await?
        .with_context(|| format!("{name} is not good"))?;
    let root = head.root_hex();
    if let Some((expected, image)) = expected {
        ensure!(
            root == expected,
            "{name} fits its manifest, but {} is not the manifest of image {image}",
            manifest.display()
        );
    }
    line(format_args!(
        "{name}: every chunk of {} is what was sent, root hash {root}",
        bytes(head.size_bytes)
    ));
    lines(&unreadable_list(&head.unreadable));
    Ok(())
}

/// The ranges that the source could not read: the image has zeros there that were never the source's bytes.
fn unreadable_list(unreadable: &[ByteRange]) -> String {
    if unreadable.is_empty() {
        return String::new();
    }
    let mut list = format!(
        "  but the source could not read {} of it, in {} ranges, and there are zeros instead:\n",
        bytes(chunks::unreadable::bytes(unreadable)),
        unreadable.len()
    );
    for range in unreadable.iter().take(LISTED) {
        list.push_str(&format!(
            "    {} bytes at byte {}\n",
            range.end - range.start,
            range.start
        ));
    }
    if unreadable.len() > LISTED {
        list.push_str(&format!("    and {} more\n", unreadable.len() - LISTED));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_source_could_not_read_is_listed_to_a_bound() {
        assert_eq!(unreadable_list(&[]), "");
        let ranges = (0..LISTED as u64 + 2).map(|number| ByteRange {
            start: number * 1024,
            end: number * 1024 + 512,
        });
        let list = unreadable_list(&ranges.collect::<Vec<_>>());
        assert!(list.contains("in 102 ranges"), "{list}");
        assert!(list.contains("512 bytes at byte 1024\n"), "{list}");
        assert!(list.ends_with("and 2 more\n"), "{list}");
    }
}
