//! The memory of either side, each in a process of its own: when a large disk is known, and when as much is packed at
//! once as can be.
//!
//! Large disks are empty files of their size, and the map says of every chunk that it is data: a pass over a changed
//! set in which nothing has changed. All that costs memory for the size of a disk is there: the map is read, told, kept
//! on both sides, and its root computed twice.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chunks::{CHUNK_BYTES, ChunkIndex};
use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency};
use domain::{Epoch, JobId, Run};
use serde::{Deserialize, Serialize};
use source::Files;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::chunk_map::{ChunkMap, Written};
use transfer::plan::Candidates;
use transfer::receiver::{Admission, Server, ServerConfig, TargetDisk};
use transfer::sender::{Compression, Preference, SendConfig, SendProgress, SourceDisk, send};
use transfer::{Ticket, TicketSecret};
use transport::{Identity, Kind, MOST_STREAMS};

const MOST_BYTES: u64 = 256 << 20;

/// Bytes a second; two processors pack faster, so that everything fills up that holds data back.
const SLOW_LINK: u64 = 9_000_000;

/// The name of the test below that is a side, and where it finds what to do.
const SIDE: &str = "one_side_in_a_process_of_its_own";
const TASK: &str = "WHERRY_MEMORY_TASK";

#[derive(Serialize, Deserialize)]
struct Task {
    directory: PathBuf,
    size_bytes: u64,
    /// True if all of the disk is sent, by all streams at zstd's highest level over a slow link; else the receiver has
    /// it.
    sends_all: bool,
    /// Of whoever has this task.
    identity: [String; 3],
    job_id: JobId,
    secret: [u8; 32],
    /// The receiver's, for the sender.
    address: Option<SocketAddr>,
}

impl Task {
    fn identity(&self) -> Identity {
        let [authority_pem, certificate_pem, key_pem] = self.identity.clone();
        Identity {
            authority_pem,
            certificate_pem,
            key_pem,
        }
    }
}

/// Not a test by itself: what the one below starts twice.
#[tokio::test]
#[ignore = "it is started by the test of both sides"]
async fn one_side_in_a_process_of_its_own() -> anyhow::Result<()> {
    let task: Task = serde_json::from_str(&std::env::var(TASK)?)?;
    let _first = rustls::crypto::ring::default_provider().install_default();
    let said = match task.address {
        None => receive(&task).await?,
        Some(address) => pass(&task, address).await?,
    };
    println!("\nsaid {said} {}", most_memory()?);
    Ok(())
}

async fn receive(task: &Task) -> anyhow::Result<String> {
    let listen = "127.0.0.1:0".parse()?;
    let config = ServerConfig::new(listen, task.identity(), "s-agent", task.directory.clone());
    let server = Server::bind(config)?;
    let disk = TargetDisk {
        index: DiskIndex(0),
        source_bytes: task.size_bytes,
        target_bytes: task.size_bytes,
    };
    let secret = TicketSecret::from_bytes(&task.secret).context("a secret has 32 bytes")?;
    let admission = Admission {
        epoch: Epoch(1),
        job_id: task.job_id.clone(),
        run: Run(1),
        secret,
        disks: vec![disk],
        checksum: false,
    };
    server.admit(admission).await?;
    println!("\nsaid {} 0", server.address()?);
    let mut status = server.status();
    status.wait_for(|status| status.is_complete()).await?;
    let proven = server.proven(DiskIndex(0)).context("it has its receipt")?;
    let root = proven.receipt().root_hex();
    if !task.sends_all {
        // The manifest is as long as the map.
        let path = task.directory.join("manifest");
        let file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        tokio::task::spawn_blocking(move || proven.write_manifest(file)).await??;
        // So is the work to read it: the disk holds nothing of what it says, which is seen in its first chunk.
        let disk = server.disk_path(DiskIndex(0));
        let differs = tokio::task::spawn_blocking(move || transfer::manifest::verify(&disk, &path));
        let differs = differs.await?.err().context("the disk is empty")?;
        anyhow::ensure!(differs.to_string().contains("from byte 0 on"), "{differs}");
    }
    server.shutdown().await?;
    Ok(root)
}

async fn pass(task: &Task, address: SocketAddr) -> anyhow::Result<String> {
    let secret = TicketSecret::from_bytes(&task.secret).context("a secret has 32 bytes")?;
    let ticket = Ticket {
        job_id: task.job_id.clone(),
        run: Run(1),
        epoch: Epoch(1),
        expires_unix_secs: i64::MAX,
    };
    let config = SendConfig {
        receiver: address,
        transport: Preference::Pinned(Kind::Quic),
        server_name: "receiver".to_owned(),
        identity: task.identity(),
        ticket: ticket.sign(&secret),
        disks: vec![SourceDisk {
            index: DiskIndex(0),
            path: task.directory.join("source"),
            size_bytes: task.size_bytes,
            candidates: if task.sends_all {
                Candidates::All
            } else {
                Candidates::Changed(Vec::new())
            },
            free_space: domain::parameters::FreeSpace::Copy,
        }],
        sources: Arc::new(Files),
        change_tracking: true,
        bad_sectors: BadSectors::Fail,
        consistency: Consistency::Crash,
        ends_at_a_write: false,
        compression: Compression::Level(if task.sends_all { 19 } else { 1 }),
        streams: if task.sends_all { MOST_STREAMS } else { 2 },
        connections: 4,
        bandwidth_limit: watch::channel(task.sends_all.then_some(SLOW_LINK)).1,
        shared_limit: None,
        scratch: task.directory.clone(),
    };
    let progress = watch::channel(SendProgress::default()).0;
    let report = send(config, CancellationToken::new(), progress).await?;
    let told = report.progress;
    let as_expected = if task.sends_all {
        told.bytes_payload + told.bytes_zero
    } else {
        told.bytes_equal
    };
    anyhow::ensure!(as_expected == task.size_bytes, "{told:?}");
    let (_, root) = report.roots[0];
    Ok(root.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The most that this process has had in memory, in bytes. Pages of files that are read and written are not its own and
/// do not count.
fn most_memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("the kernel says it")?.parse::<u64>()? * 1024)
}

/// A map that says of every chunk that it is data, and was closed.
fn write_map(path: &Path, size_bytes: u64) -> anyhow::Result<()> {
    const BATCH: u64 = 1 << 19;
    let mut map = ChunkMap::open(path, size_bytes, CHUNK_BYTES)?.map;
    let chunks = size_bytes / u64::from(CHUNK_BYTES);
    for start in (0..chunks).step_by(BATCH as usize) {
        let data = (start..(start + BATCH).min(chunks)).map(|chunk| {
            let mut hash = [7; 32];
            hash[..8].copy_from_slice(&chunk.to_le_bytes());
            let chunk = ChunkIndex(chunk);
            Written::Data { chunk, hash }
        });
        map.append(&data.collect::<Vec<_>>())?;
    }
    Ok(map.close()?)
}

struct Side {
    process: Child,
    said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Side {
    fn start(task: &Task) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([SIDE, "--exact", "--ignored", "--nocapture"])
            .env(TASK, serde_json::to_string(task)?)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().context("its output was asked for")?;
        Ok(Self {
            process,
            said: BufReader::new(output).lines(),
        })
    }

    /// The next that it says, with the memory that it has taken.
    async fn hear(&mut self) -> anyhow::Result<(String, u64)> {
        loop {
            let line = self.said.next_line().await?;
            let line = line.context("a side has ended without a word")?;
            let words: Vec<&str> = line.split(' ').collect();
            if let ["said", what, memory] = words.as_slice() {
                return Ok(((*what).to_owned(), memory.parse()?));
            }
        }
    }
}

#[tokio::test]
async fn memory_of_either_side_is_bounded_whatever_the_size_of_the_disk() -> anyhow::Result<()> {
    // Twice as much as either side holds in memory, and as much as a file of ext4 can be.
    let is_long = std::env::var_os("WHERRY_LONG").is_some();
    let size_bytes: u64 = if is_long {
        (16 << 40) - (1 << 20)
    } else {
        256 << 30
    };
    let directory = tempfile::tempdir()?;
    for name in ["source", "disk-0.raw"] {
        std::fs::File::create(directory.path().join(name))?.set_len(size_bytes)?;
    }
    write_map(&directory.path().join("disk-0.chunks"), size_bytes)?;
    let patience = Duration::from_secs(if is_long { 900 } else { 100 });
    check(directory.path(), size_bytes, false, patience).await
}

#[tokio::test]
async fn memory_of_either_side_is_bounded_with_all_streams_at_the_highest_level()
-> anyhow::Result<()> {
    // A piece for each stream, with holes between them.
    const PIECE: u64 = 10 << 20;
    const APART: u64 = 16 << 20;
    const SIZE: u64 = MOST_STREAMS as u64 * APART;
    let directory = tempfile::tempdir()?;
    let source = std::fs::File::create(directory.path().join("source"))?;
    source.set_len(SIZE)?;
    let mut noise = blake3::Hasher::new().finalize_xof();
    for start in (0..SIZE).step_by(usize::try_from(APART)?) {
        let mut piece = vec![0; usize::try_from(PIECE)?];
        noise.fill(&mut piece);
        // Seven of eight bits: it packs a little, so that zstd's windows fill up too.
        piece.iter_mut().for_each(|byte| *byte &= 0x7f);
        source.write_all_at(&piece, start)?;
    }
    check(directory.path(), SIZE, true, Duration::from_secs(100)).await
}

/// Runs both sides and holds them to what they may take.
async fn check(
    directory: &Path,
    size_bytes: u64,
    sends_all: bool,
    patience: Duration,
) -> anyhow::Result<()> {
    let authority = pki::Authority::generate("run", pki::RUN_VALIDITY)?;
    let job_id = JobId::generate();
    let secret = TicketSecret::generate();
    let task = |identity: pki::Identity, address| Task {
        directory: directory.to_owned(),
        size_bytes,
        sends_all,
        identity: [
            authority.certificate_pem().to_owned(),
            identity.certificate_pem,
            identity.key_pem,
        ],
        job_id: job_id.clone(),
        secret: *secret.as_bytes(),
        address,
    };
    let both = async {
        let server = authority.issue_server(&["receiver".to_owned()])?;
        let mut receiver = Side::start(&task(server, None))?;
        let (address, _) = receiver.hear().await?;
        let agent = authority.issue_client("s-agent")?;
        let mut sender = Side::start(&task(agent, Some(address.parse()?)))?;
        let (sent, of_sender) = sender.hear().await?;
        let (received, of_receiver) = receiver.hear().await?;
        anyhow::ensure!(sent == received, "both have the same root");
        for side in [&mut sender, &mut receiver] {
            anyhow::ensure!(side.process.wait().await?.success());
        }
        Ok((of_sender, of_receiver))
    };
    let (sender, receiver) = tokio::time::timeout(patience, both).await??;
    println!(
        "sender {} MiB, receiver {} MiB",
        sender >> 20,
        receiver >> 20
    );
    assert!(sender < MOST_BYTES, "the sender took {sender} bytes");
    assert!(receiver < MOST_BYTES, "the receiver took {receiver} bytes");
    Ok(())
}
