//! The times of a file, and what they prove.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The times of files are kept in ticks: two writes in one tick leave the same time. A file that was last written
/// longer ago than a tick shows any further write. A tick has some milliseconds, or two seconds where a file system
/// keeps whole seconds.
const FINE_TICK: Duration = Duration::from_millis(100);
const COARSE_TICK: Duration = Duration::from_millis(2100);

/// Number of samples of a file that keeps changing before it counts as being written.
const SAMPLES: usize = 3;

/// The properties of a file that a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that shows any further write; or how long it takes until it does, if it was written a moment
    /// ago.
    fn settled(file: &File) -> io::Result<Result<Self, Duration>> {
        // Pages that are mapped and dirty may be written again without a trace; clean ones may not.
        file.sync_all()?;
        let stamp = Self::of(&file.metadata()?);
        let left = stamp.settles_in(SystemTime::now());
        Ok(if left.is_zero() { Ok(stamp) } else { Err(left) })
    }

    /// The same of a file that may have been written a moment ago: waits for a tick. `None` if it keeps changing.
    pub(super) fn of_still(file: &File) -> io::Result<Option<Self>> {
        for _ in 0..SAMPLES {
            match Self::settled(file)? {
                Ok(settled) => return Ok(Some(settled)),
                Err(left) => std::thread::sleep(left),
            }
        }
        Ok(Self::settled(file)?.ok())
    }

    /// The same of the file at a path.
    pub(super) fn once_settled(path: &Path) -> io::Result<Option<Self>> {
        Self::of_still(&File::open(path)?)
    }

    /// Returns the time until a write leaves other times than both. Times in the future are other ones too: somebody
    /// has set them, or the clock.
    fn settles_in(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_1970 = |(seconds, nanos): (i64, i64)| {
            let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            seconds + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
        };
        let nearest = [self.modified, self.changed]
            .map(|time| since_1970(time).abs_diff(now))
            .into_iter()
            .min();
        self.tick().saturating_sub(nearest.unwrap_or_default())
    }

    fn tick(&self) -> Duration {
        if self.modified.1 == 0 && self.changed.1 == 0 {
            COARSE_TICK
        } else {
            FINE_TICK
        }
    }

    /// Returns true if the file has not been written since.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        // Opened, not only looked at: that asks a server of files for news.
        let now = File::open(path).and_then(|file| file.metadata());
        now.is_ok_and(|now| Self::of(&now) == *self)
    }

    /// All of it, for a digest.
    pub(super) fn words(&self) -> [u64; 7] {
        let ((modified, modified_nsec), (changed, changed_nsec)) = (self.modified, self.changed);
        [
            self.device,
            self.inode,
            self.size_bytes,
            modified.cast_unsigned(),
            modified_nsec.cast_unsigned(),
            changed.cast_unsigned(),
            changed_nsec.cast_unsigned(),
        ]
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_settled_when_a_write_would_leave_other_times() {
        let seconds = |seconds: u64, nanos: u32| UNIX_EPOCH + Duration::new(seconds, nanos);
        let stamp = |modified, changed| Stamp {
            device: 1,
            inode: 2,
            size_bytes: 3,
            modified,
            changed,
        };
        let millis = Duration::from_millis;
        for (modified, changed, now, left) in [
            ((100, 500), (100, 500), seconds(100, 500), millis(100)),
            ((100, 0), (100, 500), seconds(100, 60_000_500), millis(40)),
            ((100, 500), (100, 500), seconds(101, 0), millis(0)),
            // The file system keeps whole seconds.
            ((100, 0), (100, 0), seconds(101, 0), millis(1100)),
            ((100, 0), (100, 0), seconds(103, 0), millis(0)),
            // Somebody has set the time of the last write.
            ((900, 500), (100, 500), seconds(101, 0), millis(0)),
            ((-5, 500), (100, 500), seconds(100, 500), millis(100)),
        ] {
            let stamp = stamp(modified, changed);
            assert_eq!(stamp.settles_in(now), left, "{stamp:?} at {now:?}");
        }
    }
}
