//! Settings of a receiver. All facts about its run lie in the directory.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of a receiver.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Directory of the instance. A worker makes it and writes the file `instance` into it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Address of /healthz, /readyz and /metrics; port 0 takes a free one, and the log says which. None without it.
    #[arg(long, env = "WHERRY_RECEIVER_HEALTH")]
    pub health: Option<SocketAddr>,
    /// MiB that stay free on the file systems of the directory and of the image store. Without it, a twentieth, at
    /// least 10 GiB, but at most a quarter.
    #[arg(long, value_name = "MIB")]
    pub reserve_mib: Option<u64>,
    /// Program that makes qcow2 files.
    #[arg(long, env = "WHERRY_QEMU_IMG", default_value = "qemu-img")]
    pub qemu_img: PathBuf,
}
