//! The user identity that a server runs with.
//!
//! PostgreSQL refuses to run as root. Root therefore runs it in a user namespace that maps root to the number 1000.
//! There PostgreSQL runs as an ordinary user, and its files stay root's outside. Where such namespaces are forbidden,
//! as in most containers, it runs as the account `postgres` or `nobody`, which is given the server's files. That
//! account keeps one of root's capabilities, to pass closed folders: the programs and the data may lie below `/root`.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, User, geteuid, setgid, setgroups, setuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities,
};

/// The user identity that a server runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// This process's own.
    Own,
    /// Root's, under another number.
    Namespace,
    /// Another account's.
    Account(Uid, Gid),
}

impl Identity {
    /// Returns the identity for a program that refuses root.
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
            // Without any account, the start fails with the kernel's error about the namespace.
            .map_or(Self::Namespace, |user| Self::Account(user.uid, user.gid))
    }

    /// Makes `command` run with this identity.
    pub(crate) fn apply(self, command: &mut Command) {
        // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
        match self {
            Self::Own => {}
            Self::Namespace => unsafe {
                command.pre_exec(enter_namespace);
            },
            Self::Account(uid, gid) => unsafe {
                command.pre_exec(move || become_account(uid, gid));
            },
        }
    }

    /// Gives `path` and everything in it to this identity; the last start may have had another.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        let (uid, gid) = match self {
            Self::Own => return Ok(()),
            Self::Namespace => (0, 0),
            Self::Account(uid, gid) => (uid.as_raw(), gid.as_raw()),
        };
        give(path, uid, gid)
    }
}

fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

fn enter_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    write_once("/proc/self/setgroups", b"deny")?;
    write_once("/proc/self/uid_map", b"1000 0 1")?;
    write_once("/proc/self/gid_map", b"1000 0 1")
}

/// Writes the bytes in one write: the kernel accepts these files in no other way.
fn write_once(path: &str, bytes: &[u8]) -> io::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, bytes)?;
    Ok(())
}

/// Changes to the account with an ambient capability: only that kind outlives both the change of account and the exec.
fn become_account(uid: Uid, gid: Gid) -> io::Result<()> {
    set_keep_capabilities(true)?;
    setgroups(&[])?;
    setgid(gid)?;
    setuid(uid)?;
    let only = CapabilitySet::DAC_OVERRIDE;
    set_capabilities(
        None,
        CapabilitySets {
            effective: only,
            permitted: only,
            inheritable: only,
        },
    )?;
    configure_capability_in_ambient_set(only, true)?;
    Ok(())
}
