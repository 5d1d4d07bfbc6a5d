//! Storage for tests that survives in parts: what was not synced is lost, kept or torn when power fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Storage;

/// A medium, and whatever power has left of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Medium(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stable: Vec<u8>,
    /// The bytes that a reader sees: `stable` with `unsynced` over it.
    seen: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<Change>,
    /// The end of the next sync.
    next_sync: Sync,
    /// The end of the next write.
    next_write: Writing,
    /// All syncs from here on lie.
    always_lies: bool,
    /// Number of times that its process or its power went.
    life: u64,
    /// Every write there has been: where, and what.
    writes: Vec<(u64, Vec<u8>)>,
}

/// The end of a sync.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Sync {
    #[default]
    Good,
    /// It fails, and what it was to save is gone, as with a page cache that drops pages that it could not write.
    Failing,
    /// It says that all is well and does nothing: a broken disk.
    Lying,
}

/// The end of a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Writing {
    #[default]
    Good,
    /// There is no room.
    Full,
    /// Half of it lands, and then no more.
    Short,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(index(*length), 0),
            Self::Write(offset, written) => {
                let end = index(*offset) + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[index(*offset)..end].copy_from_slice(written);
            }
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl Medium {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The medium as a process has it until power fails.
    pub(crate) fn open(&self) -> Box<dyn Storage> {
        let life = self.state().life;
        Box::new(Opened {
            medium: self.clone(),
            life,
        })
    }

    /// Returns the bytes that a reader sees.
    pub(crate) fn seen(&self) -> Vec<u8> {
        self.state().seen.clone()
    }

    /// Every write there has been.
    pub(crate) fn writes(&self) -> Vec<(u64, Vec<u8>)> {
        self.state().writes.clone()
    }

    pub(crate) fn next_sync(&self, ends: Sync) {
        self.state().next_sync = ends;
    }

    pub(crate) fn next_write(&self, ends: Writing) {
        self.state().next_write = ends;
    }

    /// From here on nothing is synced, and nobody is told.
    pub(crate) fn lie_from_now_on(&self) {
        self.state().always_lies = true;
    }

    /// From here on syncs are good again. What was not synced when they were not is lost if power fails before the
    /// next.
    pub(crate) fn tell_the_truth(&self) {
        self.state().always_lies = false;
    }

    /// The process that had the medium open is gone; what it wrote the operating system still has.
    pub(crate) fn release(&self) {
        self.state().life += 1;
    }

    /// Power fails: each change that was not synced is lost, kept, or cut, as `fates` says. What had the medium open
    /// can do nothing any more.
    pub(crate) fn crash(&self, fates: &[u8]) {
        let mut state = self.state();
        let unsynced = std::mem::take(&mut state.unsynced);
        for (change, fate) in unsynced.into_iter().zip(fates.iter().cycle()) {
            match (change, fate % 3) {
                (_, 0) => {}
                (Change::Write(offset, mut bytes), 1) => {
                    bytes.truncate(bytes.len() * usize::from(fate / 3) / 86);
                    Change::Write(offset, bytes).apply(&mut state.stable);
                }
                (change, _) => change.apply(&mut state.stable),
            }
        }
        state.seen = state.stable.clone();
        state.next_sync = Sync::Good;
        state.next_write = Writing::Good;
        state.life += 1;
    }
}

#[derive(Debug)]
struct Opened {
    medium: Medium,
    life: u64,
}

impl Opened {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.medium.state();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("this process is dead"))
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.state()?;
        change.apply(&mut state.seen);
        if let Change::Write(offset, bytes) = &change {
            let write = (*offset, bytes.clone());
            state.writes.push(write);
        }
        state.unsynced.push(change);
        Ok(())
    }
}

impl Storage for Opened {
    fn length(&self) -> io::Result<u64> {
        Ok(self.state()?.seen.len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::Length(bytes))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = index(offset);
        buffer.copy_from_slice(&self.state()?.seen[from..from + buffer.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let ends = std::mem::take(&mut self.state()?.next_write);
        let landing = match ends {
            Writing::Good => bytes,
            Writing::Full => return Err(io::ErrorKind::StorageFull.into()),
            Writing::Short => &bytes[..bytes.len() / 2],
        };
        self.change(Change::Write(offset, landing.to_vec()))?;
        if ends == Writing::Short {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write(offset, &vec![0; index(length)])
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        match std::mem::take(&mut state.next_sync) {
            Sync::Good if state.always_lies => Ok(()),
            Sync::Good => {
                let unsynced = std::mem::take(&mut state.unsynced);
                unsynced
                    .iter()
                    .for_each(|change| change.apply(&mut state.stable));
                Ok(())
            }
            Sync::Failing => {
                state.unsynced.clear();
                state.seen = state.stable.clone();
                Err(io::Error::other("the medium refuses"))
            }
            Sync::Lying => Ok(()),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    fn drop_cache(&self, _offset: u64, _length: u64) {}
}
