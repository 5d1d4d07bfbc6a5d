//! Settings of a receiver. Everything about its run lies in the directory.

use std::path::PathBuf;

/// Settings of a receiver.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Directory of the instance. A worker makes it and writes the file `instance` into it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Program that makes qcow2 files.
    #[arg(long, env = "WHERRY_QEMU_IMG", default_value = "qemu-img")]
    pub qemu_img: PathBuf,
}
