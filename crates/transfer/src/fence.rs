//! The receiver's fence: the highest epoch that it has seen, durable before a byte of that epoch is accepted.
//!
//! A write holds the fence for reading while it is made, and raising the fence waits for such writes. So once `raise` has
//! answered, no byte of a lower epoch lands any more, however long its sender was paused.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};

use domain::Epoch;

use crate::TransferError;

/// The fence of one receiver's directory.
#[derive(Debug)]
pub struct Fence {
    path: PathBuf,
    epoch: RwLock<Epoch>,
}

/// The right to write, for as long as it is held.
#[derive(Debug)]
pub struct Pass<'a>(
    #[expect(dead_code, reason = "held for its lock, not for its value")]
    RwLockReadGuard<'a, Epoch>,
);

impl Fence {
    /// Opens the fence of a directory; a new one stands at epoch 0.
    pub fn open(directory: &Path) -> Result<Self, TransferError> {
        let path = directory.join("fence");
        let epoch = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Epoch).map_err(|_| {
                TransferError::Protocol(format!(
                    "{} does not hold an epoch but {text:?}",
                    path.display()
                ))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Epoch(0),
            Err(error) => return Err(TransferError::target("read", &path, error)),
        };
        Ok(Self {
            path,
            epoch: RwLock::new(epoch),
        })
    }

    /// The epoch at which it stands.
    pub fn epoch(&self) -> Epoch {
        *self.epoch.read().expect("no holder of this lock can panic")
    }

    /// Raises the fence to `epoch`; at the same epoch nothing changes.
    ///
    /// # Errors
    /// [`TransferError::Fenced`] if it stands higher.
    pub fn raise(&self, epoch: Epoch) -> Result<(), TransferError> {
        let mut current = self
            .epoch
            .write()
            .expect("no holder of this lock can panic");
        if epoch < *current {
            return Err(TransferError::Fenced { epoch });
        }
        if epoch > *current {
            self.persist(epoch)
                .map_err(|error| TransferError::target("write", &self.path, error))?;
            *current = epoch;
        }
        Ok(())
    }

    /// The right to write under `epoch`.
    ///
    /// # Errors
    /// [`TransferError::Fenced`] if the fence does not stand at it.
    pub fn pass(&self, epoch: Epoch) -> Result<Pass<'_>, TransferError> {
        let current = self.epoch.read().expect("no holder of this lock can panic");
        if *current == epoch {
            Ok(Pass(current))
        } else {
            Err(TransferError::Fenced { epoch })
        }
    }

    fn persist(&self, epoch: Epoch) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        writeln!(file, "{epoch}")?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_only_goes_up_and_survives() {
        let directory = tempfile::tempdir().unwrap();
        let fence = Fence::open(directory.path()).unwrap();
        fence.raise(Epoch(3)).unwrap();
        fence.raise(Epoch(3)).unwrap();
        assert!(fence.pass(Epoch(3)).is_ok());
        assert!(fence.pass(Epoch(2)).is_err());
        assert!(fence.raise(Epoch(2)).is_err());
        let reopened = Fence::open(directory.path()).unwrap();
        assert_eq!(reopened.epoch(), Epoch(3));
        assert!(reopened.raise(Epoch(1)).is_err());
    }
}
