//! The socket: bound so that nobody else can get in at any moment, and removed when the gateway ends.
//!
//! A lock file beside it shows if its process lives, since the kernel drops a lock with the process that held it. The
//! holder of the lock may remove a stale socket. No second gateway can take the place of one that runs.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::admin::admin_service_server::AdminServiceServer;
use rustix::fs::{FlockOperation, flock};
use service::Shutdown;
use tokio::net::{UnixListener, UnixSocket};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::Admin;
use crate::gateway::Gateway;

/// Longest time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;

/// An error that keeps operators from being served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves there.
    #[error("another gateway serves its operators at {}: stop it, or choose another path with --admin", path.display())]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The path holds something that is no socket.
    #[error("{} is there and is no socket: move it away, or choose another path with --admin", path.display())]
    NoSocket {
        /// Path of the file.
        path: PathBuf,
    },
    /// Others could put a socket of their own in the directory.
    #[error("others may write to {}: operators' sockets need a directory that only its owner can write to (chmod go-w), or another one with --admin", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
    },
    /// The socket can't be made.
    #[error("can't listen for operators at {}: choose another path with --admin; it must be in a directory that is there, and have fewer than 108 bytes", path.display())]
    Bind {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the system call.
        #[source]
        source: io::Error,
    },
    /// The service failed as a whole.
    #[error("the operators' service failed")]
    Serve(#[from] tonic::transport::Error),
}

/// A bound socket that does not serve yet.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: Removed,
}

/// The socket's file, removed when this is dropped, and the lock that shows that the process lives.
#[derive(Debug)]
struct Removed {
    path: PathBuf,
    _lock: File,
}

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the operators' socket can't be removed");
        }
    }
}

impl Socket {
    /// Binds the path. A socket that a dead process left there is removed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Bind {
            path: path.to_owned(),
            source,
        };
        check_directory(path).map_err(failed)??;
        let lock = lock(path).map_err(failed)?.ok_or_else(|| Error::InUse {
            path: path.to_owned(),
        })?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::NoSocket {
                    path: path.to_owned(),
                });
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = UnixSocket::new_stream().map_err(failed)?;
        socket.bind(path).map_err(failed)?;
        let removed = Removed {
            path: path.to_owned(),
            _lock: lock,
        };
        // Nobody can connect before the socket listens: at no moment is it open to others.
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        tracing::info!(path = %path.display(), "operators may call");
        Ok(Self {
            listener,
            path: removed,
        })
    }

    /// Serves until draining, and removes the socket.
    ///
    /// # Errors
    /// [`Error::Serve`].
    pub async fn serve(self, gateway: Arc<Gateway>, shutdown: Shutdown) -> Result<(), Error> {
        let Self { listener, path } = self;
        let served = Server::builder()
            .timeout(CALL_TIMEOUT)
            .add_service(AdminServiceServer::new(Admin { gateway }))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.draining())
            .await;
        drop(path);
        Ok(served?)
    }
}

fn check_directory(path: &Path) -> io::Result<Result<(), Error>> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let found = std::fs::metadata(directory)?;
    Ok(if found.mode() & OTHERS_MAY_WRITE == 0 {
        Ok(())
    } else {
        Err(Error::Directory {
            directory: directory.to_owned(),
        })
    })
}

/// Takes the lock beside the socket; `None` when a living process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(PathBuf::from(name))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn it_is_for_its_owner_only_and_goes_with_the_gateway() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(Error::InUse { .. })));
        drop(socket);
        assert!(!path.exists());
        Socket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_what_is_no_socket_stays() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody listens, the file is left");
        drop(Socket::bind(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::NoSocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_directory_that_others_may_write_to_is_refused() {
        let directory = directory();
        for mode in [0o777, 0o770, 0o720, 0o702, 0o1777] {
            std::fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let path = directory.path().join("admin.sock");
            let error = Socket::bind(&path).unwrap_err();
            assert!(matches!(error, Error::Directory { .. }), "{error}");
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_path_without_a_directory_and_one_that_is_too_long_are_refused() {
        let directory = directory();
        for name in ["none/admin.sock".to_owned(), "x".repeat(120)] {
            let error = Socket::bind(&directory.path().join(name)).unwrap_err();
            assert!(error.to_string().contains("--admin"), "{error}");
        }
    }
}
