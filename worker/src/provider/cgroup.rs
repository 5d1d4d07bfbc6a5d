//! A cgroup for each receiver, where the worker has a subtree of cgroup v2 of its own (`Delegate=yes` in its unit).
//!
//! Limits of a process (RLIMIT) apply to each process alone. A cgroup limits the receiver and all its programs
//! together, and counts threads and processes. A cgroup with controllers for its children may have no processes itself,
//! so the worker moves to one of the children.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{geteuid, getpid};

/// Mount point that systemd gives to cgroup v2.
const MOUNT: &str = "/sys/fs/cgroup";

/// Controllers that the limits of receivers need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// Threads and processes that a receiver and its programs may have.
const TASKS: u64 = 2048;

/// Time within which the kernel must have ended the processes of a cgroup. No setting, since it is the kernel's work.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The worker's own subtree.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: PathBuf,
    made: AtomicU64,
}

/// The cgroup of one receiver.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Takes the subtree that this process runs in, if it is its own, and logs the limit that applies to receivers.
    pub(crate) fn of_this_worker() -> Option<Self> {
        let pid = getpid().as_raw_nonzero().get();
        match own().and_then(|root| Self::take(&root, pid, &CONTROLLERS)) {
            Ok(cgroups) => {
                let cgroup = cgroups.root.display();
                tracing::info!(
                    %cgroup,
                    "each receiver has a cgroup, which bounds it and its programs together"
                );
                Some(cgroups)
            }
            Err(reason) => {
                let reason = reason.to_string();
                tracing::info!(
                    reason,
                    "receivers have no cgroups: limits of processes bound them and each of their programs"
                );
                None
            }
        }
    }

    /// Takes the cgroup `root`, whose only process is `worker`, for cgroups with these controllers.
    fn take(root: &Path, worker: i32, controllers: &[&str]) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(root.join(name));
        let offered = read("cgroup.controllers")?;
        let is_offered = |wanted: &&str| offered.split_whitespace().any(|name| name == *wanted);
        if !controllers.iter().all(is_offered) {
            return Err(io::Error::other(format!(
                "its cgroup offers {:?}, and {controllers:?} are needed: give its unit Delegate=yes",
                offered.trim()
            )));
        }
        if read("cgroup.procs")?.trim() != worker.to_string() {
            return Err(io::Error::other(
                "other processes share its cgroup, which so is not its own: run it as a unit with Delegate=yes",
            ));
        }
        let own = root.join("worker");
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), worker.to_string())?;
        if !controllers.is_empty() {
            let wanted: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
            fs::write(root.join("cgroup.subtree_control"), wanted.join(" "))?;
        }
        Ok(Self {
            root: root.to_owned(),
            made: AtomicU64::new(0),
        })
    }

    /// Creates a cgroup for a receiver and its programs, which may use so much memory together.
    pub(super) fn make(&self, memory_bytes: u64) -> io::Result<Cgroup> {
        self.make_with(&[
            ("memory.max", memory_bytes),
            // Too much memory ends all processes of the cgroup, and not only the program that allocated last.
            ("memory.oom.group", 1),
            ("pids.max", TASKS),
        ])
    }

    fn make_with(&self, limits: &[(&str, u64)]) -> io::Result<Cgroup> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(format!("receiver-{number}"));
        fs::create_dir(&path)?;
        let made = Cgroup { path };
        for (name, value) in limits {
            if let Err(error) = fs::write(made.path.join(name), value.to_string()) {
                let _still_empty = fs::remove_dir(&made.path);
                return Err(error);
            }
        }
        Ok(made)
    }
}

impl Cgroup {
    /// Opens the file through which a process enters the cgroup: a process that writes `0` moves itself.
    pub(super) fn door(&self) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).open(self.path.join("cgroup.procs"))
    }

    /// Ends the remaining processes of the cgroup, and removes it.
    pub(super) async fn remove(self) {
        let since = Instant::now();
        // Kernels before 5.14 can't kill a cgroup; then its end is awaited.
        let _unknown = fs::write(self.path.join("cgroup.kill"), "1");
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            if since.elapsed() > KILL_TIMEOUT {
                let cgroup = self.path.display();
                tracing::warn!(%cgroup, %error, "the cgroup of an ended receiver can't be removed");
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Returns the cgroup of this process, if it may be the worker's own.
fn own() -> io::Result<PathBuf> {
    let refused = |reason: &str| Err(io::Error::other(reason.to_owned()));
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let Some(path) = cgroups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return refused("this host has no cgroup v2");
    };
    if path.is_empty() || !Path::new(MOUNT).join("cgroup.controllers").exists() {
        return refused("this host has no cgroup v2, or shows the worker none of its own");
    }
    // Root may write to every cgroup, including one that was not delegated.
    if geteuid().is_root() {
        return refused("the worker runs as root: run it as a unit with a user of its own");
    }
    Ok(Path::new(MOUNT).join(path))
}

/// Moves the calling process through the door of a cgroup. Makes one system call.
pub(super) fn enter(door: &File) -> io::Result<()> {
    rustix::io::write(door, b"0").map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    /// Makes a directory like a worker's cgroup, in which writes go to ordinary files.
    fn looks_like(controllers: &str, processes: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(root.path().join("cgroup.procs"), processes).unwrap();
        root
    }

    #[test]
    fn the_worker_moves_aside_and_each_receiver_gets_its_limits() {
        let root = looks_like("cpu memory pids\n", "42\n");
        let cgroups = Cgroups::take(root.path(), 42, &CONTROLLERS).unwrap();
        for number in ["0", "1"] {
            cgroups.make(1 << 30).unwrap();
            let receiver = format!("receiver-{number}");
            for (file, wanted) in [
                ("memory.max", "1073741824"),
                ("memory.oom.group", "1"),
                ("pids.max", "2048"),
            ] {
                let written = fs::read_to_string(root.path().join(&receiver).join(file));
                assert_eq!(written.unwrap(), wanted, "{receiver} {file}");
            }
        }
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("worker/cgroup.procs"), "42");
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids");
    }

    #[test]
    fn a_cgroup_that_is_not_the_workers_own_stays_as_it_is() {
        for (controllers, processes) in [("cpu pids", "42\n"), ("cpu memory pids", "1\n42\n")] {
            let root = looks_like(controllers, processes);
            let refused = Cgroups::take(root.path(), 42, &CONTROLLERS).unwrap_err();
            assert!(refused.to_string().contains("Delegate=yes"), "{refused}");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        }
    }

    /// A cgroup of the kernel, in a mount of its own. It may offer no controllers, so these receivers have no limits.
    struct Real(tempfile::TempDir, PathBuf);

    impl Real {
        /// Returns `None` if this process may not mount.
        fn mount() -> Option<Self> {
            let directory = tempfile::tempdir().unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "cgroup2", "none"])
                .arg(directory.path())
                .output();
            if !mounted.is_ok_and(|output| output.status.success()) {
                return None;
            }
            let root = directory
                .path()
                .join(format!("wherry-test-{}", std::process::id()));
            let real = Self(directory, root);
            fs::create_dir(&real.1).unwrap();
            Some(real)
        }
    }

    impl Drop for Real {
        fn drop(&mut self) {
            for path in [&self.1.join("worker"), &self.1] {
                let _gone = fs::remove_dir(path);
            }
            let _unmounted = Command::new("umount").arg(self.0.path()).status();
        }
    }

    #[tokio::test]
    async fn a_receiver_runs_in_its_cgroup_and_both_end_together() {
        let Some(real) = Real::mount() else {
            eprintln!("this machine lets nobody mount cgroup v2 here: nothing to see");
            return;
        };
        let mut worker = Command::new("sleep").arg("600").spawn().unwrap();
        let procs = real.1.join("cgroup.procs");
        fs::write(procs, worker.id().to_string()).unwrap();
        let cgroups = Cgroups::take(&real.1, worker.id().try_into().unwrap(), &[]).unwrap();
        let cgroup = cgroups.make_with(&[]).unwrap();
        let path = cgroup.path.clone();
        let door = cgroup.door().unwrap();
        let mut receiver = Command::new("sleep");
        receiver.arg("600");
        // SAFETY: between fork and exec there is one system call.
        unsafe { receiver.pre_exec(move || enter(&door)) };
        let mut receiver = receiver.spawn().unwrap();
        let inside = fs::read_to_string(path.join("cgroup.procs")).unwrap();
        assert_eq!(inside.trim(), receiver.id().to_string());
        // A zombie no longer belongs to a cgroup.
        receiver.kill().unwrap();
        cgroup.remove().await;
        assert!(!path.exists());
        receiver.wait().unwrap();
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
}
