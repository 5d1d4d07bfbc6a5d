//! A measured transfer: a real sender in this process and a real receiver in another, over loopback or any other
//! network.
//!
//! The caller gives the command that becomes the receiver; that command must end up in [`receive`]. The two processes
//! exchange lines of JSON over the receiver's standard input and output. The order is: setup in, port out, the end of
//! input, and last the receiver's usage out.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Epoch, JobId, Run};
use serde::{Deserialize, Serialize};
use source::Files;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::plan::Candidates;
use transfer::receiver::{Admission, Server, ServerConfig, TargetDisk, disk_path};
use transfer::sender::{Compression, Preference, SendConfig, SendProgress, SourceDisk};
use transfer::{Ticket, TicketSecret, TransferError};
use transport::{Identity, Kind};

/// Longest time in which the receiver's process must write one line.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// The name in the sender's certificate.
pub(crate) const SENDER: &str = "bench";

/// Settings of a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The source: a file or a block device.
    pub(crate) from: PathBuf,
    /// The target, a file. One that exists is written over in place, and with a chunk map beside it only where it
    /// differs.
    pub(crate) to: PathBuf,
    /// Keep the chunk map beside the target, with `.chunks` after its name.
    pub(crate) keep: bool,
    /// `None`: the sender's choice; 0: no compression; else a zstd level.
    pub(crate) level: Option<i32>,
    /// Parallel streams.
    pub(crate) streams: usize,
    /// Most connections that QUIC spreads them over.
    pub(crate) connections: usize,
    /// Most bytes a second.
    pub(crate) link_bytes_per_sec: Option<u64>,
    /// Re-read the target before the receipt.
    pub(crate) checksum: bool,
    /// Handling of free space of file systems.
    pub(crate) free_space: FreeSpace,
    /// The transport; `None`: the sender's choice.
    pub(crate) transport: Option<Kind>,
    /// Address that the receiver listens on.
    pub(crate) address: IpAddr,
}

/// Certificates of the two sides, from one authority.
#[derive(Debug, Clone)]
pub(crate) struct Identities {
    /// The receiver's.
    pub(crate) receiver: Identity,
    /// A name in the receiver's certificate.
    pub(crate) receiver_name: String,
    /// The sender's.
    pub(crate) sender: Identity,
}

/// Resources that a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Seconds of processor time, user and system.
    pub(crate) cpu_secs: f64,
    /// Most memory at once, in bytes.
    pub(crate) peak_memory_bytes: u64,
}

/// The result of a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The settings of the measurement.
    pub(crate) settings: Settings,
    /// The transport that was used.
    pub(crate) transport: Option<Kind>,
    /// Reason for the choice of transport.
    pub(crate) transport_reason: String,
    /// Time from the first packet to the receipt.
    pub(crate) wall_secs: f64,
    /// Bytes of the source.
    pub(crate) bytes_logical: u64,
    /// Bytes that were read of it: neither holes nor free space, nor what is known not to have changed.
    pub(crate) bytes_read: u64,
    /// Bytes of the chunks that were sent, before packing.
    pub(crate) bytes_payload: u64,
    /// Bytes given to the data streams, headers included.
    pub(crate) bytes_wire: u64,
    /// Bytes that were holes or zeros, or free space that was left out.
    pub(crate) bytes_zero: u64,
    /// Bytes of free space among these.
    pub(crate) bytes_free: u64,
    /// The root over the disk's chunk hashes, as both sides have it.
    pub(crate) root: String,
    /// This process.
    pub(crate) sender: Usage,
    /// The other one.
    pub(crate) receiver: Usage,
}

/// A measurement that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file of the measurement.
    #[error("can't {doing} {}", path.display())]
    File {
        /// The step that failed.
        doing: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The receiver's process.
    #[error("the receiver's process {what}")]
    Receiver {
        /// The failure, as the end of the message.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The transfer itself.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

#[derive(Serialize, Deserialize)]
struct Setup {
    authority_pem: String,
    certificate_pem: String,
    key_pem: String,
    directory: PathBuf,
    job_id: JobId,
    secret: [u8; 32],
    size_bytes: u64,
    checksum: bool,
    address: IpAddr,
}

/// Copies the source to the target and reports the time and resources that it took.
///
/// # Errors
/// See [`BenchError`].
pub(crate) async fn run(
    settings: Settings,
    identities: Identities,
    receiver: Command,
) -> Result<Report, BenchError> {
    let size_bytes = size_of(&settings.from)?;
    let directory = lend(&settings.to)?;
    let (job_id, secret) = (JobId::generate(), TicketSecret::generate());
    let setup = Setup {
        authority_pem: identities.receiver.authority_pem.clone(),
        certificate_pem: identities.receiver.certificate_pem.clone(),
        key_pem: identities.receiver.key_pem.clone(),
        directory: directory.clone(),
        job_id: job_id.clone(),
        secret: *secret.as_bytes(),
        size_bytes,
        checksum: settings.checksum,
        address: settings.address,
    };
    let mut other = Other::start(receiver)?;
    other.tell(&setup).await?;
    let port: u16 = other.hear().await?;

    let ticket = Ticket {
        job_id,
        run: Run(1),
        epoch: Epoch(1),
        expires_unix_secs: i64::MAX,
    };
    let config = SendConfig {
        receiver: SocketAddr::from((settings.address, port)),
        transport: settings
            .transport
            .map_or(Preference::Probe { failed: None }, Preference::Pinned),
        server_name: identities.receiver_name,
        identity: identities.sender,
        ticket: ticket.sign(&secret),
        disks: vec![SourceDisk {
            index: DiskIndex::SYSTEM,
            path: settings.from.clone(),
            size_bytes,
            candidates: Candidates::All,
            free_space: settings.free_space,
        }],
        sources: Arc::new(Files),
        change_tracking: true,
        bad_sectors: BadSectors::Fail,
        // One measurement, even if the source is written meanwhile.
        consistency: Consistency::Fuzzy,
        ends_at_a_write: false,
        compression: match settings.level {
            None => Compression::Auto,
            Some(0) => Compression::Off,
            Some(level) => Compression::Level(level),
        },
        streams: settings.streams,
        connections: settings.connections,
        bandwidth_limit: watch::channel(settings.link_bytes_per_sec).1,
        shared_limit: None,
        scratch: directory.clone(),
    };
    let before = usage();
    let began = Instant::now();
    let progress = watch::channel(SendProgress::default()).0;
    let sent = transfer::sender::send(config, CancellationToken::new(), progress).await;
    let wall = began.elapsed();
    let after = usage();
    let receiver = other.end().await;
    give_back(&settings.to, &directory, settings.keep)?;
    let sent = sent?;
    let choice = sent.progress.transport;
    Ok(Report {
        transport: choice.map(|choice| choice.transport),
        transport_reason: choice.map_or_else(String::new, |choice| choice.to_string()),
        wall_secs: wall.as_secs_f64(),
        bytes_logical: size_bytes,
        bytes_payload: sent.progress.bytes_payload,
        bytes_wire: sent.progress.bytes_wire,
        bytes_read: sent.progress.bytes_read,
        bytes_zero: sent.progress.bytes_zero,
        bytes_free: sent.progress.bytes_free,
        root: sent
            .roots
            .iter()
            .map(|(_, root)| blake3::Hash::from(*root).to_hex().to_string())
            .collect(),
        sender: Usage {
            cpu_secs: after.cpu_secs - before.cpu_secs,
            ..after
        },
        receiver: receiver?,
        settings,
    })
}

/// The receiver's process: takes its setup from standard input, and ends with it.
///
/// # Errors
/// See [`BenchError`].
pub(crate) async fn receive() -> Result<(), BenchError> {
    let lost = |source| BenchError::Receiver {
        what: "lost its caller",
        source,
    };
    let setup = next_line().await.map_err(lost)?.unwrap_or_default();
    let setup: Setup = serde_json::from_str(&setup).map_err(|error| lost(error.into()))?;
    let identity = Identity {
        authority_pem: setup.authority_pem,
        certificate_pem: setup.certificate_pem,
        key_pem: setup.key_pem,
    };
    let listen = SocketAddr::from((setup.address, 0));
    let server = Server::bind(ServerConfig::new(listen, identity, SENDER, setup.directory))?;
    let admission = Admission {
        epoch: Epoch(1),
        job_id: setup.job_id,
        run: Run(1),
        secret: TicketSecret::from_bytes(&setup.secret).expect("a secret of 32 bytes is one"),
        disks: vec![TargetDisk {
            index: DiskIndex::SYSTEM,
            source_bytes: setup.size_bytes,
            target_bytes: setup.size_bytes,
        }],
        checksum: setup.checksum,
    };
    server.admit(admission).await?;
    let port = server.address().map_err(lost)?.port();
    say(&port).map_err(lost)?;
    while next_line().await.map_err(lost)?.is_some() {}
    server.shutdown().await?;
    say(&usage()).map_err(lost)
}

/// The next line of standard input; `None` at its end.
async fn next_line() -> std::io::Result<Option<String>> {
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose())
        .await
        .map_err(std::io::Error::other)?
}

fn say(message: &impl Serialize) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(message)?)?;
    output.flush()
}

/// The other process.
struct Other {
    process: Child,
    /// Dropped to end it.
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(mut command: Command) -> Result<Self, BenchError> {
        let broken = |source| BenchError::Receiver {
            what: "could not be started",
            source,
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().map_err(broken)?;
        let output = process.stdout.take();
        let output = output.ok_or_else(|| broken(std::io::Error::other("it has no output")))?;
        Ok(Self {
            input: process.stdin.take(),
            process,
            output: BufReader::new(output).lines(),
        })
    }

    async fn tell(&mut self, message: &impl Serialize) -> Result<(), BenchError> {
        let mut line = serde_json::to_string(message).expect("the setup has a JSON form");
        line.push('\n');
        let told = match &mut self.input {
            Some(input) => input.write_all(line.as_bytes()).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        told.map_err(|source| BenchError::Receiver {
            what: "does not listen",
            source,
        })
    }

    async fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        let broken = |source| BenchError::Receiver {
            what: "gives no answer; its own words are above",
            source,
        };
        let line = tokio::time::timeout(LINE_TIMEOUT, self.output.next_line())
            .await
            .map_err(|late| broken(late.into()))?
            .map_err(broken)?
            .ok_or_else(|| broken(std::io::ErrorKind::UnexpectedEof.into()))?;
        serde_json::from_str(&line).map_err(|error| broken(error.into()))
    }

    /// Lets the receiver end, and returns its usage.
    async fn end(mut self) -> Result<Usage, BenchError> {
        self.input = None;
        let usage = self.hear().await?;
        let _ended = tokio::time::timeout(LINE_TIMEOUT, self.process.wait()).await;
        Ok(usage)
    }
}

/// Makes a directory beside the target for the receiver to work in. A target that exists is moved there as the
/// receiver's disk, and its chunk map with it.
fn lend(to: &Path) -> Result<PathBuf, BenchError> {
    let directory = beside(to, ".bench");
    let lend = || {
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir(&directory)?;
        for (outside, inside) in lent(to, &directory) {
            if outside.exists() {
                std::fs::rename(outside, inside)?;
            }
        }
        Ok(())
    };
    match lend() {
        Ok(()) => Ok(directory),
        Err(source) => Err(BenchError::File {
            doing: "prepare",
            path: directory,
            source,
        }),
    }
}

fn give_back(to: &Path, directory: &Path, with_map: bool) -> Result<(), BenchError> {
    let wanted = if with_map { 2 } else { 1 };
    let give_back = || {
        for (outside, inside) in lent(to, directory).into_iter().take(wanted) {
            std::fs::rename(inside, outside)?;
        }
        std::fs::remove_dir_all(directory)
    };
    give_back().map_err(|source| BenchError::File {
        doing: "put in place",
        path: to.to_owned(),
        source,
    })
}

/// Paths of disk and chunk map, each outside and inside the receiver's directory.
fn lent(to: &Path, directory: &Path) -> [(PathBuf, PathBuf); 2] {
    let disk = disk_path(directory, DiskIndex::SYSTEM);
    let map = disk.with_extension("chunks");
    [(to.to_owned(), disk), (beside(to, ".chunks"), map)]
}

fn beside(to: &Path, ending: &str) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Processor time of this process, all threads together.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process takes no negative time")
}

fn usage() -> Usage {
    // The value of getrusage begins with the size of the process that forked this one.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    let peak_kib: u64 = peak
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("the kernel says what a process has had in memory");
    Usage {
        cpu_secs: processor_time().as_secs_f64(),
        peak_memory_bytes: peak_kib * 1024,
    }
}

fn size_of(path: &Path) -> Result<u64, BenchError> {
    std::fs::File::open(path)
        .and_then(|file| Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?))
        .map_err(|source| BenchError::File {
            doing: "open",
            path: path.to_owned(),
            source,
        })
}
