//! A block device whose end can be made unreadable: the kernel answers reads behind the end of a loop device's file
//! with an I/O error.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A loop device over a file. Dropping it detaches it.
#[derive(Debug)]
pub struct LoopDevice {
    device: PathBuf,
    file: PathBuf,
}

impl LoopDevice {
    /// A device of the file's size.
    pub fn over(file: &Path) -> anyhow::Result<Self> {
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .context("run losetup")?;
        ensure!(
            made.status.success(),
            "no loop device for {}: run this test as root: {}",
            file.display(),
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(Self {
            device: String::from_utf8(made.stdout)?.trim().into(),
            file: file.to_owned(),
        })
    }

    /// Path of the device.
    pub fn path(&self) -> &Path {
        &self.device
    }

    /// Makes everything from this byte on unreadable; the size stays.
    pub fn lose_from(&self, byte: u64) -> anyhow::Result<()> {
        Ok(File::options()
            .write(true)
            .open(&self.file)?
            .set_len(byte)?)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} is still attached", self.device.display());
        }
    }
}
