//! As whom a server runs.
//!
//! PostgreSQL refuses to run as root. Root therefore runs it in a user namespace in which root has the number 1000: it sees itself as an
//! ordinary user, and its files stay root's outside. Where such namespaces are forbidden, it runs as the account `postgres` or `nobody`,
//! to whom its directory is given.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{User, geteuid};

/// As whom a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As this process.
    Own,
    /// As root under another number.
    Namespace,
    /// As another account.
    Account {
        /// Its number.
        uid: u32,
        /// Its group's number.
        gid: u32,
    },
}

impl Identity {
    /// The identity for a program that refuses root.
    pub(crate) fn not_root() -> Self {
        if !geteuid().is_root() {
            return Self::Own;
        }
        let mut probe = Command::new("/bin/true");
        probe
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self::Namespace.apply(&mut probe);
        if probe.status().is_ok_and(|status| status.success()) {
            return Self::Namespace;
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map_or(Self::Namespace, |user| Self::Account {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })
    }

    /// Makes `command` run as this.
    pub(crate) fn apply(self, command: &mut Command) {
        match self {
            Self::Own => {}
            Self::Namespace => {
                // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
                unsafe { command.pre_exec(enter_namespace) };
            }
            Self::Account { uid, gid } => {
                command.uid(uid).gid(gid);
            }
        }
    }

    /// Gives `path` and everything in it to this identity.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        let Self::Account { uid, gid } = self else {
            return Ok(());
        };
        chown(path, Some(uid), Some(gid))?;
        if path.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.own(&entry?.path())?;
            }
        }
        Ok(())
    }
}

fn enter_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    write_once(c"/proc/self/setgroups", b"deny")?;
    write_once(c"/proc/self/uid_map", b"1000 0 1")?;
    write_once(c"/proc/self/gid_map", b"1000 0 1")
}

/// The kernel takes these files in one write only.
fn write_once(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    use std::os::unix::ffi::OsStrExt;

    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, bytes)?;
    Ok(())
}
