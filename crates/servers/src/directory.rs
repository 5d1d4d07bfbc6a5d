//! The directory of one server: lock, password and log.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ServerError;

/// Longest time that a directory may stay locked by a process that is just ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOG_TAIL_BYTES: u64 = 2000;

/// A server's directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if necessary, and locks it. Waits briefly for a predecessor that is just ending.
    pub(crate) fn open(path: &Path) -> Result<Self, ServerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(preparing("create", path))?;
        let path = fs::canonicalize(path).map_err(preparing("find", path))?;
        let file = path.join("lock");
        let lock = private_file(&file).map_err(preparing("open", &file))?;
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => return Err(ServerError::InUse { dir: path }),
                Err(TryLockError::Error(source)) => {
                    return Err(preparing("lock", &file)(source));
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the server's own log, which starts empty at each start.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    /// Returns the password that was generated when the directory was new.
    pub(crate) fn password(&self) -> Result<String, ServerError> {
        let path = self.path.join("password");
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => self.make_password(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_password(&path),
            Err(error) => Err(preparing("read", &path)(error)),
        }
    }

    fn make_password(&self, path: &Path) -> Result<String, ServerError> {
        let password = format!("{:032x}", rand::random::<u128>());
        self.write_private(path, &password)?;
        Ok(password)
    }

    /// Writes a file, readable only by this user, either completely or not at all.
    pub(crate) fn write_private(&self, path: &Path, text: &str) -> Result<(), ServerError> {
        let partial = path.with_extension("partial");
        private_file(&partial)
            .and_then(|mut file| {
                file.set_len(0)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&partial, path))
            .map_err(preparing("write", path))
    }
}

/// Opens a file for writing that only this user can read.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Returns the last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        file.read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) => format!("(unreadable: {error})"),
    }
}

pub(crate) fn preparing<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> ServerError + 'a {
    move |source| ServerError::Preparing {
        action,
        path: path.to_owned(),
        source,
    }
}
