//! The `process` provider: an instance is a directory, and a receiver process in it.
//!
//! The kernel ends the receiver with its worker (`PR_SET_PDEATHSIG`), so a worker that dies leaves no process behind.
//! The received data lies in the directory. The next worker on this machine ends a receiver that still runs there, of
//! any epoch, before it starts its own. The receiver itself holds an exclusive lock of the directory and refuses an
//! epoch below its fence.
//!
//! The file `instance` names the epoch that owns the directory. It is written before any process is ended or started,
//! so from then on no verb of a lower epoch has an effect. A worker that is paused between this check and its action
//! can still end the newer receiver, once; the owner then starts another.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use domain::{Epoch, InstanceId};
use prost::Message as _;
use proto::receiver::{CONTROL_SOCKET, InstanceConfig, InstanceReady, TargetDisk};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, kill_process, kill_process_group, setrlimit,
};

use super::cgroup::{self, Cgroup, Cgroups};
use super::{ControlAddress, InstanceSpec, InstanceState, Provider, ProviderError};

/// Time within which the kernel must have removed a killed process. No setting, since it is the kernel's work.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Variables that a receiver is given from the worker's environment. All others are withheld: the worker's environment
/// contains the keys of the database, of NATS and of the secrets at rest.
pub(super) const ENVIRONMENT: [&str; 13] = [
    // Locations of programs and libraries, formats of text and times, directory of scratch files.
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "RUST_BACKTRACE",
    // Logs and traces, as the worker's.
    "WHERRY_LOG_FORMAT",
    "WHERRY_LOG_LEVEL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    // The receiver's own settings.
    "WHERRY_QEMU_IMG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Resources that a receiver may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `None`: as much as its disks need.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) open_files: u64,
    pub(crate) core_bytes: u64,
}

/// Creates instances as processes of this machine.
#[derive(Debug)]
pub(crate) struct ProcessProvider {
    /// Directory of all instances.
    pub(crate) root: PathBuf,
    /// Program that runs receivers.
    pub(crate) program: PathBuf,
    pub(crate) image_store: PathBuf,
    pub(crate) listen: std::net::IpAddr,
    pub(crate) start_timeout: Duration,
    /// Time that a receiver has to flush and end by itself.
    pub(crate) park_timeout: Duration,
    pub(crate) limits: Limits,
    /// The subtree for receivers' cgroups, if the worker has one.
    pub(crate) cgroups: Option<Cgroups>,
    /// MiB that receivers leave free; `None` is their default.
    pub(crate) reserve_mib: Option<u64>,
}

#[tonic::async_trait]
impl Provider for ProcessProvider {
    fn name(&self) -> &'static str {
        "process"
    }

    /// Returns the machine and the directory: workers that share the directory share its instances.
    fn host(&self) -> String {
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        format!("{name}:{}", self.root.display())
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<ControlAddress, ProviderError> {
        let directory = self.directory(&spec.id);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(failed("make the directory", &directory))?;
        check_owner(&directory, spec.epoch)?;
        let config = InstanceConfig {
            instance_id: spec.id.to_string(),
            epoch: spec.epoch.0,
            authority_pem: spec.authority_pem.clone(),
            certificate_pem: spec.certificate_pem.clone(),
            key_pem: spec.key_pem.clone(),
            listen_ip: self.listen.to_string(),
            image_store: self.image_store.display().to_string(),
            work: Some(spec.work.clone()),
        };
        write_private(&directory, "instance", &config.encode_to_vec())?;
        end_receiver(&directory, Duration::ZERO).await?;
        remove_if_there(&directory.join("ready"))?;
        let cgroup = self.cgroup(spec);
        let mut child = self.spawn(&directory, spec, cgroup.as_ref())?;
        let pid = child.id();
        let ready = wait_ready(&directory, spec.epoch.0, &mut child, self.start_timeout).await;
        if ready.is_err() {
            let _gone = child.start_kill();
        }
        // Reaped whenever it ends; the driver of the run notices its silence.
        let id = spec.id.clone();
        tokio::spawn(async move {
            let ended = child.wait().await;
            tracing::info!(instance_id = %id, pid, ?ended, "a receiver has ended");
            if let Some(cgroup) = cgroup {
                cgroup.remove().await;
            }
        });
        ready?;
        Ok(ControlAddress::Socket(directory.join(CONTROL_SOCKET)))
    }

    async fn describe(&self, id: &InstanceId) -> InstanceState {
        let directory = self.directory(id);
        if receiver_of(&directory).is_some() {
            InstanceState::Running
        } else if directory.exists() {
            InstanceState::Parked
        } else {
            InstanceState::Absent
        }
    }

    async fn park(&self, id: &InstanceId, epoch: Epoch) -> Result<(), ProviderError> {
        let directory = self.directory(id);
        check_owner(&directory, epoch)?;
        end_receiver(&directory, self.park_timeout).await
    }

    async fn destroy(&self, id: &InstanceId, epoch: Epoch) -> Result<(), ProviderError> {
        let directory = self.directory(id);
        check_owner(&directory, epoch)?;
        // By request first: it has nothing left to flush but its last spans.
        end_receiver(&directory, self.park_timeout).await?;
        let removing = directory.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(removing)).await;
        match removed {
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove the directory", &directory)(error))
            }
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<InstanceId>, ProviderError> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list the instances in", &self.root)(error)),
        };
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect())
    }
}

impl ProcessProvider {
    fn directory(&self, id: &InstanceId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn memory_bytes(&self, spec: &InstanceSpec) -> u64 {
        let given = self.limits.memory_bytes;
        given.unwrap_or_else(|| memory_for(&spec.work.disks))
    }

    /// Returns the cgroup of a new receiver, if the worker has a subtree for it.
    fn cgroup(&self, spec: &InstanceSpec) -> Option<Cgroup> {
        // For the receiver, and a program that makes an image beside it.
        let memory_bytes = self.memory_bytes(spec).saturating_mul(2);
        let made = self.cgroups.as_ref()?.make(memory_bytes);
        made.inspect_err(|error| {
            let instance_id = &spec.id;
            tracing::warn!(%instance_id, %error, "a receiver gets no cgroup: only limits of processes bound it");
        })
        .ok()
    }

    fn spawn(
        &self,
        directory: &Path,
        spec: &InstanceSpec,
        cgroup: Option<&Cgroup>,
    ) -> Result<tokio::process::Child, ProviderError> {
        let log_path = directory.join("receiver.log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(failed("write", &log_path))?;
        let also_log = log.try_clone().map_err(failed("write", &log_path))?;
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg("receiver")
            .arg("--dir")
            .arg(directory)
            // A free port, which receiver.log names.
            .args(["--health", "127.0.0.1:0"])
            .args(self.reserve_mib.map(|mib| format!("--reserve-mib={mib}")))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also_log)
            .process_group(0)
            // If a run is stopped while its receiver starts, no receiver is left behind.
            .kill_on_drop(true)
            .env_clear()
            .envs(
                ENVIRONMENT
                    .iter()
                    .filter_map(|&name| Some((name, std::env::var_os(name)?))),
            );
        let largest_file = domain::disk::most_file_bytes(spec.largest_disk_bytes());
        let limits = self.limits;
        let memory_bytes = self.memory_bytes(spec);
        let door = cgroup
            .map(Cgroup::door)
            .transpose()
            .map_err(failed("join a cgroup for", directory))?;
        let worker = getpid();
        // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The worker may have died just before.
                if getppid() != Some(worker) {
                    return Err(Errno::SRCH.into());
                }
                if let Some(door) = &door {
                    cgroup::enter(door)?;
                }
                // A limit on written memory and not on address space: the allocator reserves far more address space
                // than it ever uses.
                setrlimit(Resource::Data, limit(memory_bytes))?;
                setrlimit(Resource::Nofile, limit(limits.open_files))?;
                setrlimit(Resource::Core, limit(limits.core_bytes))?;
                setrlimit(Resource::Fsize, limit(largest_file))?;
                Ok(())
            });
        }
        command.spawn().map_err(|source| ProviderError::Start {
            program: self.program.display().to_string(),
            source,
        })
    }
}

/// Memory for connections, streams and programs: the same for every run.
const MEMORY_BYTES: u64 = 2 << 30;

/// Returns the bytes that a receiver may allocate for these disks. It keeps 32 bytes for each MiB of them, and may need
/// them twice while they grow.
pub(super) fn memory_for(disks: &[TargetDisk]) -> u64 {
    let bytes: u64 = disks.iter().map(|disk| disk.source_size_bytes).sum();
    MEMORY_BYTES + (bytes >> 20) * 64
}

fn limit(value: u64) -> Rlimit {
    Rlimit {
        current: Some(value),
        maximum: Some(value),
    }
}

async fn wait_ready(
    directory: &Path,
    epoch: i64,
    child: &mut tokio::process::Child,
    timeout: Duration,
) -> Result<(), ProviderError> {
    let start = Instant::now();
    loop {
        if read_ready(directory).is_some_and(|ready| ready.epoch == epoch) {
            return Ok(());
        }
        if let Ok(Some(_)) = child.try_wait() {
            return Err(ProviderError::Ended {
                log: log_tail(directory),
            });
        }
        if start.elapsed() > timeout {
            return Err(ProviderError::NotReady {
                log: log_tail(directory),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn read_ready(directory: &Path) -> Option<InstanceReady> {
    InstanceReady::decode(std::fs::read(directory.join("ready")).ok()?.as_slice()).ok()
}

/// Refuses an epoch below the one that owns the directory.
fn check_owner(directory: &Path, epoch: Epoch) -> Result<(), ProviderError> {
    let path = directory.join("instance");
    let owner = match std::fs::read(&path) {
        // An unreadable file is no instance: it is written again.
        Ok(bytes) => {
            InstanceConfig::decode(bytes.as_slice()).map_or(Epoch(0), |config| Epoch(config.epoch))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Epoch(0),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    if owner > epoch {
        return Err(ProviderError::Fenced { epoch, owner });
    }
    Ok(())
}

/// Returns the receiver that runs in a directory: the process that its lock file names, if that process really is a
/// receiver of this directory.
fn receiver_of(directory: &Path) -> Option<Pid> {
    let locked_by = std::fs::read_to_string(directory.join("lock")).ok()?;
    let pid: i32 = locked_by.trim().parse().ok()?;
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let names_directory = arguments
        .split(|&byte| byte == 0)
        .any(|argument| argument == directory.as_os_str().as_encoded_bytes());
    let is_zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.contains(") Z "));
    if names_directory && !is_zombie {
        Pid::from_raw(pid)
    } else {
        None
    }
}

/// Ends the receiver of a directory: by request for as long as `patience`, then by force.
async fn end_receiver(directory: &Path, patience: Duration) -> Result<(), ProviderError> {
    let Some(pid) = receiver_of(directory) else {
        return Ok(());
    };
    if !patience.is_zero() {
        let _already_gone = kill_process(pid, Signal::TERM);
        if gone(directory, pid, patience).await {
            return Ok(());
        }
    }
    // Its process group: a qemu-img that it runs must not continue to write.
    let _already_gone = kill_process_group(pid, Signal::KILL);
    if gone(directory, pid, KILL_TIMEOUT).await {
        Ok(())
    } else {
        Err(ProviderError::Stuck {
            pid: pid.as_raw_nonzero().get(),
        })
    }
}

async fn gone(directory: &Path, pid: Pid, patience: Duration) -> bool {
    let start = Instant::now();
    while receiver_of(directory) == Some(pid) {
        if start.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Replaces a file that only its owner may read; a reader finds either the old or the new one.
fn write_private(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), ProviderError> {
    use std::io::Write as _;

    let (path, new) = (directory.join(name), directory.join(format!("{name}.new")));
    remove_if_there(&new)?;
    let file = std::fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new);
    file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    })
    .and_then(|()| std::fs::rename(&new, &path))
    .map_err(failed("write", &path))
}

fn remove_if_there(path: &Path) -> Result<(), ProviderError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> ProviderError + use<> {
    let path = path.display().to_string();
    move |source| ProviderError::File {
        doing,
        path: path.clone(),
        source,
    }
}

/// Returns the last lines that a receiver has printed.
fn log_tail(directory: &Path) -> String {
    let log = std::fs::read_to_string(directory.join("receiver.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(3).collect();
    if lines.is_empty() {
        "it printed nothing".to_owned()
    } else {
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}
