//! A run: its authority, its disks, its receiver and its sender.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Epoch, JobId, Run};
use source::{Files, Sources};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::plan::Candidates;
use transfer::receiver::{Admission, ReceiveStatus, Server, ServerConfig, TargetDisk};
use transfer::sender::{
    Compression, Preference, SendConfig, SendProgress, SendReport, SourceDisk, send,
};
use transfer::{Ticket, TicketSecret, TransferError};
use transport::{Identity, Kind};

pub const MIB: u64 = 1 << 20;
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A run: authority, identities and ticket secret; a directory with the instance and the source's disks.
pub struct Bench {
    pub transport: Kind,
    pub directory: tempfile::TempDir,
    pub server_identity: Identity,
    pub agent_identity: Identity,
    /// Another whom the run's authority has signed for.
    pub worker_identity: Identity,
    pub secret: TicketSecret,
    pub job_id: JobId,
    pub disks: Vec<(PathBuf, u64)>,
    pub checksum: bool,
    pub sources: Arc<dyn Sources>,
    pub bad_sectors: BadSectors,
    pub consistency: Consistency,
}

impl Bench {
    pub fn new(transport: Kind, disks: &[&[u8]]) -> anyhow::Result<Self> {
        let _installed_by_another_test = rustls::crypto::ring::default_provider().install_default();
        let authority = pki::Authority::generate("run", pki::RUN_VALIDITY)?;
        let identity = |issued: pki::Identity| Identity {
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: issued.certificate_pem,
            key_pem: issued.key_pem,
        };
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("instance"))?;
        let mut sources = Vec::new();
        for (index, content) in disks.iter().enumerate() {
            let path = directory.path().join(format!("source-{index}"));
            std::fs::write(&path, content)?;
            sources.push((path, content.len() as u64));
        }
        Ok(Self {
            transport,
            server_identity: identity(authority.issue_server(&["receiver".to_owned()])?),
            agent_identity: identity(authority.issue_client("s-agent")?),
            worker_identity: identity(authority.issue_client("control")?),
            directory,
            secret: TicketSecret::generate(),
            job_id: JobId::generate(),
            disks: sources,
            checksum: true,
            sources: Arc::new(Files),
            bad_sectors: BadSectors::Fail,
            consistency: Consistency::Crash,
        })
    }

    pub fn instance(&self) -> PathBuf {
        self.directory.path().join("instance")
    }

    pub fn server(&self) -> anyhow::Result<(Server, SocketAddr)> {
        let listen = "127.0.0.1:0".parse()?;
        let mut config = ServerConfig::new(
            listen,
            self.server_identity.clone(),
            "s-agent",
            self.instance(),
        );
        config.flush_interval = Duration::from_millis(50);
        let server = Server::bind(config)?;
        let address = server.address()?;
        Ok((server, address))
    }

    pub fn admission(&self, epoch: i64) -> Admission {
        let disks = (0_u16..).zip(&self.disks);
        Admission {
            epoch: Epoch(epoch),
            job_id: self.job_id.clone(),
            run: Run(1),
            secret: self.secret.clone(),
            disks: disks
                .map(|(index, (_, size))| TargetDisk {
                    index: DiskIndex(index),
                    source_bytes: *size,
                    target_bytes: size + 3 * MIB,
                })
                .collect(),
            checksum: self.checksum,
        }
    }

    pub fn config(&self, receiver: SocketAddr, epoch: i64, bandwidth: Option<u64>) -> SendConfig {
        let ticket = Ticket {
            job_id: self.job_id.clone(),
            run: Run(1),
            epoch: Epoch(epoch),
            expires_unix_secs: i64::MAX,
        };
        let disks = (0_u16..).zip(&self.disks);
        SendConfig {
            receiver,
            transport: Preference::Pinned(self.transport),
            server_name: "receiver".to_owned(),
            identity: self.agent_identity.clone(),
            ticket: ticket.sign(&self.secret),
            disks: disks
                .map(|(index, (path, size_bytes))| SourceDisk {
                    index: DiskIndex(index),
                    path: path.clone(),
                    size_bytes: *size_bytes,
                    candidates: Candidates::All,
                    free_space: FreeSpace::Copy,
                })
                .collect(),
            sources: Arc::clone(&self.sources),
            change_tracking: true,
            bad_sectors: self.bad_sectors,
            consistency: self.consistency,
            ends_at_a_write: false,
            compression: Compression::Off,
            streams: 2,
            connections: 2,
            bandwidth_limit: watch::channel(bandwidth).1,
            shared_limit: None,
            scratch: self.directory.path().to_owned(),
        }
    }

    pub async fn send(
        &self,
        receiver: SocketAddr,
        epoch: i64,
    ) -> Result<SendReport, TransferError> {
        let progress = watch::channel(SendProgress::default()).0;
        let sending = send(
            self.config(receiver, epoch, None),
            CancellationToken::new(),
            progress,
        );
        tokio::time::timeout(PATIENCE, sending)
            .await
            .expect("a transfer of a few MiB ends")
    }

    pub fn check_targets(&self) -> anyhow::Result<()> {
        for (index, (source, size)) in self.disks.iter().enumerate() {
            let target = std::fs::read(self.instance().join(format!("disk-{index}.raw")))?;
            let source = std::fs::read(source)?;
            let size = usize::try_from(*size)?;
            anyhow::ensure!(
                target.len() == size + 3 * MIB as usize,
                "the target's size is what was asked for"
            );
            anyhow::ensure!(
                target[..size] == source[..],
                "disk {index} has the source's bytes"
            );
            anyhow::ensure!(
                target[size..].iter().all(|&byte| byte == 0),
                "zeros lie behind them"
            );
        }
        Ok(())
    }
}

/// Bytes that do not compress and never repeat.
pub fn noise(length: u64, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub fn write_manifest(server: &Server, index: DiskIndex, path: &Path) -> anyhow::Result<()> {
    let proven = server.proven(index);
    let proven = proven.context("a complete disk has its receipt")?;
    Ok(proven.write_manifest(std::fs::File::create(path)?)?)
}

pub async fn wait_for(
    status: &mut watch::Receiver<ReceiveStatus>,
    what: impl FnMut(&ReceiveStatus) -> bool,
) -> anyhow::Result<ReceiveStatus> {
    let found = tokio::time::timeout(PATIENCE, status.wait_for(what)).await;
    Ok(found.context("the receiver never got there")??.clone())
}

pub fn durable(status: &ReceiveStatus) -> u64 {
    status.disks.iter().map(|disk| disk.bytes_durable).sum()
}

pub fn flip(path: &Path, offset: u64) -> anyhow::Result<()> {
    let file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x10], offset)?;
    Ok(())
}
