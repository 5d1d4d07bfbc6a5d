//! Tools of the system for tests of disks.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command of which the test depends, and gives its output.
pub(super) fn sh(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", command])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Mounting and loop devices need it. Outside of CI, where everything runs as root, tests go without.
pub(super) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can do it");
    }
    is_root
}

/// A loop device over a file; detached when dropped, so that a failing test leaves nothing behind.
pub(super) struct LoopDevice(PathBuf);

impl LoopDevice {
    pub(super) fn over(file: &Path) -> Self {
        let made = sh(&format!("losetup --find --show {}", file.display()));
        Self(PathBuf::from(made.trim()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}
