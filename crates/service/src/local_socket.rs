//! Unix sockets in a directory whose path may have any length.
//!
//! A socket's address has room for a path of 107 bytes. The directory is therefore opened, and the socket is reached by
//! a short path that begins at the directory's descriptor.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;

/// Listens at the socket `name` in `directory`, which only its owner may open. Replaces an existing socket: the caller
/// knows that it has no listener.
///
/// # Errors
/// The directory can't be opened, or the socket can't be created.
pub fn bind(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let opened = File::open(directory)?;
    let path = short(&opened, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(&path)?;
    // No client can connect before the socket listens, so it is never open to others.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// The directory can't be opened, or the socket has no listener.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let opened = File::open(directory)?;
    UnixStream::connect(short(&opened, name)).await
}

fn short(directory: &File, name: impl AsRef<Path>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_path_that_fits_no_address_is_served_and_what_a_dead_process_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("control.sock");
        drop(bind(&directory, "control.sock").unwrap());
        assert!(connect(&path).await.is_err(), "nobody listens");

        let listener = bind(&directory, "control.sock").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (connected, accepted) = tokio::join!(connect(&path), listener.accept());
        connected.unwrap().write_all(b"hello").await.unwrap();
        let mut heard = String::new();
        accepted
            .unwrap()
            .0
            .read_to_string(&mut heard)
            .await
            .unwrap();
        assert_eq!(heard, "hello");
    }
}
