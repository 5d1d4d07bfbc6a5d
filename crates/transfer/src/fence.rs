//! The receiver's fence: the highest epoch that it has seen, durable before a byte of that epoch is accepted, and the
//! one connection of it that may write.
//!
//! A write holds the fence for reading while it is made; raising the fence, or giving the right to write to another
//! connection, waits for such writes. So once [`Fence::raise`] or [`Fence::grant`] has answered, no byte of a lower
//! epoch or an older connection lands any more, however long its thread was paused. Without the second half, a chunk
//! that an old connection had queued could overwrite a newer one of the same epoch, behind the back of the chunk map.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};

use domain::Epoch;

use crate::TransferError;

/// The fence of one receiver's directory.
#[derive(Debug)]
pub struct Fence {
    path: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    epoch: Epoch,
    /// The last grant; only its holder may write.
    grant: u64,
}

/// The right of one connection to write, until the next one gets it or the fence is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    epoch: Epoch,
    grant: u64,
}

/// A write that is under way.
#[derive(Debug)]
pub struct Pass<'a>(
    #[expect(dead_code, reason = "held for its lock, not for its value")]
    RwLockReadGuard<'a, State>,
);

impl Fence {
    /// Opens the fence of a directory; a new one stands at epoch 0.
    ///
    /// # Errors
    /// The file can't be read, or does not hold an epoch.
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
        let state = RwLock::new(State { epoch, grant: 0 });
        Ok(Self { path, state })
    }

    /// The epoch at which it stands.
    pub fn epoch(&self) -> Epoch {
        self.state
            .read()
            .expect("no holder of this lock can panic")
            .epoch
    }

    /// Raises the fence to `epoch`, durably; at the same epoch nothing changes.
    ///
    /// # Errors
    /// [`TransferError::Fenced`] if it stands higher.
    pub fn raise(&self, epoch: Epoch) -> Result<(), TransferError> {
        let mut state = self.lock();
        if epoch < state.epoch {
            return Err(TransferError::Fenced { epoch });
        }
        if epoch > state.epoch {
            self.persist(epoch)
                .map_err(|error| TransferError::target("write", &self.path, error))?;
            state.epoch = epoch;
        }
        Ok(())
    }

    /// Gives the right to write to a connection of `epoch`, and takes it from the one that had it.
    ///
    /// # Errors
    /// [`TransferError::Fenced`] if the fence does not stand at `epoch`.
    pub fn grant(&self, epoch: Epoch) -> Result<Right, TransferError> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return Err(TransferError::Fenced { epoch });
        }
        state.grant += 1;
        Ok(Right {
            epoch,
            grant: state.grant,
        })
    }

    /// Takes the right to write from whoever has it.
    pub fn revoke(&self) {
        self.lock().grant += 1;
    }

    /// Lets one write through; nothing changes hands before the pass is dropped.
    ///
    /// # Errors
    /// [`TransferError::Fenced`] or [`TransferError::Replaced`] if the right is gone.
    pub fn pass(&self, right: &Right) -> Result<Pass<'_>, TransferError> {
        let state = self.state.read().expect("no holder of this lock can panic");
        if state.epoch != right.epoch {
            return Err(TransferError::Fenced { epoch: right.epoch });
        }
        if state.grant != right.grant {
            return Err(TransferError::Replaced);
        }
        Ok(Pass(state))
    }

    fn lock(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state
            .write()
            .expect("no holder of this lock can panic")
    }

    fn persist(&self, epoch: Epoch) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{epoch}")?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        crate::disk::sync_parent(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_fence_only_goes_up_and_survives() {
        let directory = tempfile::tempdir().unwrap();
        let fence = Fence::open(directory.path()).unwrap();
        fence.raise(Epoch(3)).unwrap();
        let right = fence.grant(Epoch(3)).unwrap();
        fence.raise(Epoch(3)).unwrap();
        assert!(fence.pass(&right).is_ok(), "the same epoch changes nothing");
        assert!(matches!(
            fence.grant(Epoch(2)),
            Err(TransferError::Fenced { .. })
        ));
        assert!(fence.raise(Epoch(2)).is_err());
        fence.raise(Epoch(4)).unwrap();
        assert!(matches!(
            fence.pass(&right),
            Err(TransferError::Fenced { .. })
        ));
        let reopened = Fence::open(directory.path()).unwrap();
        assert_eq!(reopened.epoch(), Epoch(4));
        assert!(reopened.raise(Epoch(1)).is_err());
    }

    #[test]
    fn only_the_newest_connection_of_an_epoch_writes() {
        let directory = tempfile::tempdir().unwrap();
        let fence = Fence::open(directory.path()).unwrap();
        fence.raise(Epoch(1)).unwrap();
        let old = fence.grant(Epoch(1)).unwrap();
        let new = fence.grant(Epoch(1)).unwrap();
        assert!(matches!(fence.pass(&old), Err(TransferError::Replaced)));
        assert!(fence.pass(&new).is_ok());
        fence.revoke();
        assert!(matches!(fence.pass(&new), Err(TransferError::Replaced)));
    }

    #[test]
    fn nothing_changes_hands_while_a_write_is_under_way() {
        let directory = tempfile::tempdir().unwrap();
        let fence = Fence::open(directory.path()).unwrap();
        fence.raise(Epoch(1)).unwrap();
        let right = fence.grant(Epoch(1)).unwrap();
        std::thread::scope(|scope| {
            let pass = fence.pass(&right).unwrap();
            let (done, raised) = sync_channel(1);
            let fence = &fence;
            scope.spawn(move || done.send(fence.raise(Epoch(2))).unwrap());
            assert!(raised.recv_timeout(Duration::from_millis(100)).is_err());
            drop(pass);
            raised
                .recv_timeout(Duration::from_secs(10))
                .unwrap()
                .unwrap();
        });
        assert!(fence.pass(&right).is_err());
    }
}
