//! A directory with little room: a file system of its own in memory.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const BALLAST: &str = "ballast";
const PIECE: u64 = 4 << 20;

/// A small file system over a directory. Dropping it takes it away again, so it must go before the cluster.
#[derive(Debug)]
pub struct SmallStore {
    path: PathBuf,
}

impl SmallStore {
    /// Puts a file system of this size over the directory.
    ///
    /// # Errors
    /// This process may not mount. A test that needs a full disk then fails, and does not pass without having checked
    /// anything.
    pub fn over(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        set(path, bytes, MsFlags::empty()).with_context(|| {
            format!(
                "can't mount a small file system over {}: run this test as root",
                path.display()
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Bytes that are free.
    pub fn free(&self) -> anyhow::Result<u64> {
        let found = nix::sys::statvfs::statvfs(&self.path)?;
        Ok(found.blocks_available() * found.fragment_size())
    }

    /// Takes all room but `left` bytes, as a neighbour would.
    pub fn fill(&self, left: u64) -> anyhow::Result<()> {
        let mut ballast = std::fs::File::create(self.path.join(BALLAST))?;
        loop {
            let room = self.free()?.saturating_sub(left).min(PIECE);
            if room == 0 {
                return Ok(());
            }
            let zeros = vec![0; usize::try_from(room)?];
            match ballast.write_all(&zeros) {
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                written => written?,
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub fn empty(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.path.join(BALLAST))?)
    }

    /// Gives it more room.
    pub fn grow(&self, bytes: u64) -> anyhow::Result<()> {
        set(&self.path, bytes, MsFlags::MS_REMOUNT)
    }
}

fn set(path: &Path, bytes: u64, flags: MsFlags) -> anyhow::Result<()> {
    let size = format!("size={bytes}");
    Ok(mount(
        Some("wherry-test"),
        path,
        Some("tmpfs"),
        flags,
        Some(size.as_str()),
    )?)
}

impl Drop for SmallStore {
    fn drop(&mut self) {
        let _gone_with_the_machine = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}
