//! The data directory of `wherry up`.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use rustix::fs::{FlockOperation, flock};
use store::SealKey;

use super::in_directory;

/// The directory, locked for this process.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    _lock: File,
}

impl Directory {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        in_directory(made, "make", path)?;
        let root = in_directory(path.canonicalize(), "open", path)?;
        // It may have been made by an earlier version, or by hand.
        let closed = std::fs::set_permissions(&root, Permissions::from_mode(0o700));
        in_directory(closed, "close to other accounts", &root)?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path);
        let lock = in_directory(lock, "write", &lock_path)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another `wherry up` runs in {}: stop it first, or choose another directory with --data-dir",
                root.display()
            );
        }
        Ok(Self { root, _lock: lock })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The key for secrets: the one given, the one kept, or a new one that is kept from now on.
    pub(super) fn seal_key(&self, given: Option<&str>) -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        let path = self.path("seal-key");
        match std::fs::read_to_string(&path) {
            Ok(kept) => Ok(kept.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = SealKey::generate_hex();
                self.write_private("seal-key", &key)?;
                Ok(key)
            }
            Err(error) => in_directory(Err(error), "read", &path),
        }
    }

    /// Writes the operator's file: the socket for `wherry admin`, and the access to this directory's database.
    pub(super) fn write_operator(
        &self,
        database_url: &str,
        seal_key: &str,
        admin_socket: &Path,
    ) -> anyhow::Result<()> {
        let text = serde_json::json!({
            "admin_socket": admin_socket,
            "database_url": database_url,
            "seal_key": seal_key,
        });
        self.write_private("operator.json", &format!("{text:#}\n"))
    }

    /// Writes a file that only its owner may read, whole or not at all.
    pub(super) fn write_private(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        let _left_by_a_fall = std::fs::remove_file(&new);
        let file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        });
        in_directory(written, "write", &path)
    }
}
