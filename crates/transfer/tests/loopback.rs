//! The whole path over loopback with real files: what arrives, what is sent again after a fall, and what is refused. Each test runs over both
//! carriers.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use domain::disk::DiskIndex;
use domain::parameters::FreeSpace;
use domain::{Epoch, FailureCode, JobId, Run};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::plan::{Candidates, Extent};
use transfer::receiver::{Admission, ReceiveStatus, Server, ServerConfig, TargetDisk};
use transfer::sender::{
    Compression, Preference, Reason, SendConfig, SendProgress, SendReport, SourceDisk, send,
};
use transfer::{Carrier, Identity, Ticket, TicketSecret, TransferError, manifest};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Every test below, over one carrier.
macro_rules! over {
    ($module:ident, $carrier:expr, [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() -> anyhow::Result<()> {
                    super::$test($carrier).await
                }
            )*
        }
    };
}

macro_rules! over_both_carriers {
    ($($test:ident),* $(,)?) => {
        over!(quic, transfer::Carrier::Quic, [$($test),*]);
        over!(tcp, transfer::Carrier::Tcp, [$($test),*]);
    };
}

over_both_carriers!(
    disks_arrive_whole_with_receipts_and_manifests,
    after_a_receiver_fell_only_the_rest_is_sent,
    no_byte_below_the_fence_lands,
    the_newest_connection_of_an_epoch_takes_over,
    a_receipt_is_taken_back_when_its_disk_is_written_again,
    a_halt_keeps_what_was_copied_and_the_same_epoch_may_go_on,
    a_flipped_bit_on_the_target_is_found_and_mended,
    a_flipped_bit_in_disk_or_manifest_fails_the_image,
    eight_tebibytes_of_nothing_cost_next_to_nothing,
    compressed_disks_arrive_whole_and_small,
    strangers_and_wrong_disks_are_refused,
    a_full_target_says_so_and_counts_nothing,
);

/// A run: authority, identities and ticket secret; a directory with the instance and the source's disks.
struct Bench {
    carrier: Carrier,
    directory: tempfile::TempDir,
    server_identity: Identity,
    agent_identity: Identity,
    secret: TicketSecret,
    job_id: JobId,
    disks: Vec<(PathBuf, u64)>,
    checksum: bool,
}

impl Bench {
    fn new(carrier: Carrier, disks: &[&[u8]]) -> anyhow::Result<Self> {
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
            carrier,
            server_identity: identity(authority.issue_server(&["receiver".to_owned()])?),
            agent_identity: identity(authority.issue_client("s-agent")?),
            directory,
            secret: TicketSecret::generate(),
            job_id: JobId::generate(),
            disks: sources,
            checksum: true,
        })
    }

    fn instance(&self) -> PathBuf {
        self.directory.path().join("instance")
    }

    fn server(&self) -> anyhow::Result<(Server, SocketAddr)> {
        let listen = "127.0.0.1:0".parse()?;
        let mut config = ServerConfig::new(listen, self.server_identity.clone(), self.instance());
        config.flush_interval = Duration::from_millis(50);
        let server = Server::bind(config)?;
        let address = server.address()?;
        Ok((server, address))
    }

    fn admission(&self, epoch: i64) -> Admission {
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

    fn config(&self, receiver: SocketAddr, epoch: i64, bandwidth: Option<u64>) -> SendConfig {
        let ticket = Ticket {
            job_id: self.job_id.clone(),
            run: Run(1),
            epoch: Epoch(epoch),
            expires_unix_secs: i64::MAX,
        };
        let disks = (0_u16..).zip(&self.disks);
        SendConfig {
            receiver,
            carrier: Preference::Pinned(self.carrier),
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
            compression: Compression::Off,
            streams: 2,
            bandwidth_limit: watch::channel(bandwidth).1,
        }
    }

    async fn send(&self, receiver: SocketAddr, epoch: i64) -> Result<SendReport, TransferError> {
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

    fn check_targets(&self) -> anyhow::Result<()> {
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
fn noise(length: u64, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

async fn wait_for(
    status: &mut watch::Receiver<ReceiveStatus>,
    what: impl FnMut(&ReceiveStatus) -> bool,
) -> anyhow::Result<ReceiveStatus> {
    let found = tokio::time::timeout(PATIENCE, status.wait_for(what)).await;
    Ok(found.context("the receiver never got there")??.clone())
}

fn durable(status: &ReceiveStatus) -> u64 {
    status.disks.iter().map(|disk| disk.bytes_durable).sum()
}

async fn disks_arrive_whole_with_receipts_and_manifests(carrier: Carrier) -> anyhow::Result<()> {
    let mut first = noise(5 * MIB + 77, 1);
    first[(2 * MIB) as usize..(3 * MIB) as usize].fill(0);
    let bench = Bench::new(
        carrier,
        &[&first, &noise(1, 2), &vec![0; 4 * MIB as usize], &[]],
    )?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let report = bench.send(address, 1).await?;
    bench.check_targets()?;
    assert_eq!(report.progress.bytes_payload, 4 * MIB + 77 + 1);
    assert_eq!(report.progress.bytes_zero, 5 * MIB);

    let status = server.status().borrow().clone();
    assert!(status.is_complete());
    for (disk, (index, root)) in status.disks.iter().zip(&report.roots) {
        assert_eq!(disk.receipt.unwrap().root(), *root);
        assert_eq!(disk.bytes_durable, disk.size_bytes);
        let manifest = server
            .manifest(*index)
            .context("a complete disk has a manifest")?;
        let path = bench.directory.path().join(format!("manifest-{index}"));
        std::fs::write(&path, manifest.to_json())?;
        assert_eq!(
            manifest::verify(&server.disk_path(*index), &path, |_| {})?,
            *root
        );
    }
    server.shutdown().await?;
    Ok(())
}

async fn after_a_receiver_fell_only_the_rest_is_sent(carrier: Carrier) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(24 * MIB, 3)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let progress = watch::channel(SendProgress::default()).0;
    let slow = bench.config(address, 1, Some(16 * MIB));
    let sending = tokio::spawn(send(slow, CancellationToken::new(), progress));
    wait_for(&mut server.status(), |status| durable(status) >= 8 * MIB).await?;
    // The process falls: nothing is halted, flushed or said.
    drop(server);
    sending.abort();
    // What was being written when it fell may lie torn behind the map's last record.
    let map = bench.instance().join("disk-0.chunks");
    let length = std::fs::metadata(&map)?.len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&map)?
        .write_all_at(&[0x5a; 13], length)?;

    let (server, address) = bench.server()?;
    server.admit(bench.admission(2)).await?;
    let kept = durable(&server.status().borrow());
    assert!(kept >= 8 * MIB, "{kept} bytes are left of at least 8 MiB");
    let report = bench.send(address, 2).await?;
    assert_eq!(report.progress.bytes_equal, kept);
    assert_eq!(report.progress.bytes_payload, 24 * MIB - kept);
    bench.check_targets()?;
    server.shutdown().await?;
    Ok(())
}

async fn no_byte_below_the_fence_lands(carrier: Carrier) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(16 * MIB, 4)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let slow = bench.config(address, 1, Some(4 * MIB));
    let old = tokio::spawn(send(
        slow,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    ));
    wait_for(&mut server.status(), |status| durable(status) >= MIB).await?;
    server.admit(bench.admission(2)).await?;
    let before = std::fs::read(server.disk_path(DiskIndex(0)))?;
    let ended = tokio::time::timeout(PATIENCE, old)
        .await??
        .expect_err("the old epoch is over");
    assert!(ended.is_retryable(), "{ended}");
    assert_eq!(
        std::fs::read(server.disk_path(DiskIndex(0)))?,
        before,
        "nothing landed after the fence was raised"
    );
    assert!(
        bench.send(address, 1).await.is_err(),
        "a ticket of the old epoch is refused"
    );
    assert!(
        server.admit(bench.admission(1)).await.is_err(),
        "an old owner can't come back"
    );
    bench.send(address, 2).await?;
    bench.check_targets()?;

    // The fence survives the process.
    server.shutdown().await?;
    let (server, _) = bench.server()?;
    assert_eq!(server.epoch(), Epoch(2));
    assert!(matches!(
        server.admit(bench.admission(1)).await,
        Err(TransferError::Fenced { .. })
    ));
    Ok(())
}

async fn the_newest_connection_of_an_epoch_takes_over(carrier: Carrier) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(16 * MIB, 10)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let progress = || watch::channel(SendProgress::default()).0;
    let slow = bench.config(address, 1, Some(4 * MIB));
    let old = tokio::spawn(send(slow, CancellationToken::new(), progress()));
    wait_for(&mut server.status(), |status| durable(status) >= MIB).await?;

    // A stranger at the door changes nothing for the one inside.
    let stranger = SendConfig {
        ticket: vec![0; 60],
        ..bench.config(address, 1, None)
    };
    let refused = send(stranger, CancellationToken::new(), progress()).await;
    assert!(refused.is_err());
    assert!(server.status().borrow().connected);
    assert_eq!(server.status().borrow().failure, None);

    let new = bench.send(address, 1).await?;
    let ended = tokio::time::timeout(PATIENCE, old).await??;
    let ended = ended.expect_err("another connection has the right to write now");
    assert!(ended.is_retryable(), "{ended}");
    assert!(
        new.progress.bytes_equal >= MIB,
        "it goes on where the other was"
    );
    assert!(server.status().borrow().is_complete());
    bench.check_targets()?;
    Ok(())
}

async fn a_receipt_is_taken_back_when_its_disk_is_written_again(
    carrier: Carrier,
) -> anyhow::Result<()> {
    let mut bench = Bench::new(carrier, &[&noise(6 * MIB, 11)])?;
    bench.checksum = false;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let first = bench.send(address, 1).await?;
    std::fs::write(&bench.disks[0].0, noise(6 * MIB, 12))?;
    let slow = bench.config(address, 1, Some(2 * MIB));
    let progress = watch::channel(SendProgress::default()).0;
    let sending = tokio::spawn(send(slow, CancellationToken::new(), progress));
    let changed = wait_for(&mut server.status(), |status| !status.is_complete()).await?;
    assert_eq!(changed.disks[0].receipt, None);
    assert!(
        server.manifest(DiskIndex(0)).is_none(),
        "no receipt, no manifest"
    );
    let second = tokio::time::timeout(PATIENCE, sending).await???;
    assert_ne!(first.roots, second.roots);
    let receipt = server.status().borrow().disks[0].receipt;
    assert_eq!(
        receipt.map(|receipt| receipt.root()),
        Some(second.roots[0].1)
    );
    bench.check_targets()?;
    Ok(())
}

async fn a_halt_keeps_what_was_copied_and_the_same_epoch_may_go_on(
    carrier: Carrier,
) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(12 * MIB, 13)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let slow = bench.config(address, 1, Some(4 * MIB));
    let progress = watch::channel(SendProgress::default()).0;
    let sending = tokio::spawn(send(slow, CancellationToken::new(), progress));
    wait_for(&mut server.status(), |status| durable(status) >= 2 * MIB).await?;
    server.halt().await?;
    let ended = tokio::time::timeout(PATIENCE, sending).await??;
    assert!(ended.expect_err("halted").is_retryable());
    let kept = durable(&server.status().borrow());
    assert!(
        bench.send(address, 1).await.is_err(),
        "nobody is let in after a halt"
    );
    server.admit(bench.admission(1)).await?;
    assert_eq!(durable(&server.status().borrow()), kept);
    let report = bench.send(address, 1).await?;
    assert_eq!(report.progress.bytes_equal, kept);
    bench.check_targets()?;
    Ok(())
}

async fn a_flipped_bit_on_the_target_is_found_and_mended(carrier: Carrier) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(4 * MIB, 5)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    bench.send(address, 1).await?;
    let disk = server.disk_path(DiskIndex(0));
    server.shutdown().await?;
    flip(&disk, 2 * MIB + 5)?;

    let (server, address) = bench.server()?;
    server.admit(bench.admission(2)).await?;
    let found = bench
        .send(address, 2)
        .await
        .expect_err("the map says that all is there; the disk does not");
    assert_eq!(found.code(), FailureCode::Corrupt);
    assert!(
        !server.status().borrow().is_complete(),
        "no receipt for a disk that differs"
    );
    server.admit(bench.admission(3)).await?;
    let mended = bench.send(address, 3).await?;
    assert_eq!(
        mended.progress.bytes_payload, MIB,
        "only the chunk that differs is sent again"
    );
    bench.check_targets()?;
    Ok(())
}

async fn a_flipped_bit_in_disk_or_manifest_fails_the_image(carrier: Carrier) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(3 * MIB + 9, 6)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    bench.send(address, 1).await?;
    let (disk, path) = (
        server.disk_path(DiskIndex(0)),
        bench.directory.path().join("manifest"),
    );
    let text = server
        .manifest(DiskIndex(0))
        .context("a complete disk has a manifest")?
        .to_json();
    std::fs::write(&path, &text)?;
    for offset in [0, 3 * MIB + 8, 3 * MIB + 9, 6 * MIB + 8] {
        flip(&disk, offset)?;
        assert!(
            manifest::verify(&disk, &path, |_| {}).is_err(),
            "a flipped bit at {offset}"
        );
        flip(&disk, offset)?;
    }
    manifest::verify(&disk, &path, |_| {})?;
    let digits: Vec<usize> = text
        .match_indices("\":[\"")
        .map(|(at, _)| at + 4)
        .chain(text.find("\"root\":\"").map(|at| at + 8))
        .collect();
    assert_eq!(digits.len(), 2);
    for at in digits {
        let mut damaged = text.clone().into_bytes();
        damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
        std::fs::write(&path, damaged)?;
        assert!(
            manifest::verify(&disk, &path, |_| {}).is_err(),
            "a changed digit at {at}"
        );
    }
    Ok(())
}

async fn eight_tebibytes_of_nothing_cost_next_to_nothing(carrier: Carrier) -> anyhow::Result<()> {
    let mut bench = Bench::new(carrier, &[&[]])?;
    bench.disks[0].1 = 8 << 40;
    std::fs::File::options()
        .write(true)
        .open(&bench.disks[0].0)?
        .set_len(8 << 40)?;
    bench.checksum = false;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let report = bench.send(address, 1).await?;
    assert!(
        report.progress.bytes_wire < 4096,
        "{} bytes for nothing",
        report.progress.bytes_wire
    );
    assert!(server.status().borrow().is_complete());
    assert_eq!(
        bench.send(address, 1).await?.progress.bytes_wire,
        0,
        "what is there is not sent again"
    );
    Ok(())
}

async fn compressed_disks_arrive_whole_and_small(carrier: Carrier) -> anyhow::Result<()> {
    let text: Vec<u8> = b"all work and no play makes a dull disk\n"
        .iter()
        .copied()
        .cycle()
        .take(6 * MIB as usize)
        .collect();
    let bench = Bench::new(carrier, &[&[text, noise(2 * MIB, 7)].concat()])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let config = SendConfig {
        compression: Compression::Level(3),
        ..bench.config(address, 1, None)
    };
    let report = send(
        config,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    )
    .await?;
    assert!(
        report.progress.bytes_wire < 3 * MIB,
        "{} bytes",
        report.progress.bytes_wire
    );
    bench.check_targets()?;
    Ok(())
}

async fn strangers_and_wrong_disks_are_refused(carrier: Carrier) -> anyhow::Result<()> {
    let bench = Bench::new(carrier, &[&noise(MIB, 8)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;

    let other = Bench::new(carrier, &[&noise(MIB, 8)])?;
    let stranger = SendConfig {
        identity: other.agent_identity.clone(),
        ..bench.config(address, 1, None)
    };
    let refused = send(
        stranger,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    )
    .await;
    assert!(refused.is_err(), "another run's certificate");

    let forged = SendConfig {
        ticket: other.config(address, 1, None).ticket,
        ..bench.config(address, 1, None)
    };
    let refused = send(
        forged,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    )
    .await;
    assert_eq!(
        refused.expect_err("another run's ticket").code(),
        FailureCode::ReceiverUnreachable
    );

    std::fs::File::options()
        .write(true)
        .open(&bench.disks[0].0)?
        .set_len(2 * MIB)?;
    let grown = bench
        .send(address, 1)
        .await
        .expect_err("the disk has grown");
    assert_eq!(grown.code(), FailureCode::SourceDiskChanged);
    assert!(
        grown.to_string().contains(&(2 * MIB).to_string()),
        "{grown}"
    );

    std::fs::remove_file(&bench.disks[0].0)?;
    let gone = bench.send(address, 1).await.expect_err("the disk is gone");
    assert_eq!(gone.code(), FailureCode::SourceDiskUnreadable);
    Ok(())
}

/// A full target: a small tmpfs, which only root can mount.
async fn a_full_target_says_so_and_counts_nothing(carrier: Carrier) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return Ok(());
    }
    let bench = Bench::new(carrier, &[&noise(16 * MIB, 9)])?;
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
        .arg(bench.instance())
        .status()?;
    anyhow::ensure!(mounted.success(), "mount a tmpfs");
    let outcome = fill(&bench).await;
    std::process::Command::new("umount")
        .arg("-l")
        .arg(bench.instance())
        .status()?;
    outcome
}

async fn fill(bench: &Bench) -> anyhow::Result<()> {
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let full = bench
        .send(address, 1)
        .await
        .expect_err("16 MiB do not fit 6");
    assert_eq!(full.code(), FailureCode::TargetFull, "{full}");
    assert!(!full.is_retryable());
    let status = server.status().borrow().clone();
    assert_eq!(
        status.failure.map(|failure| failure.code),
        Some(FailureCode::TargetFull)
    );
    assert!(
        status
            .disks
            .iter()
            .all(|disk| disk.receipt.is_none() && disk.bytes_durable <= 6 * MIB)
    );
    Ok(())
}

fn flip(path: &Path, offset: u64) -> anyhow::Result<()> {
    let file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x10], offset)?;
    Ok(())
}

/// UDP that goes nowhere: a host of its own, whose loopback drops it. Only root can make one.
#[test]
fn where_udp_is_blocked_the_disks_go_over_tcp() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a network namespace");
        return Ok(());
    }
    // The thread is the namespace's; all of the test's own threads are made by it.
    let in_namespace = std::thread::spawn(|| {
        if let Err(error) = own_network_without_udp() {
            eprintln!("skipped: this machine can't make a network without UDP: {error:#}");
            return Ok(());
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(over_whatever_works())
    });
    in_namespace.join().expect("the test does not panic")
}

fn own_network_without_udp() -> anyhow::Result<()> {
    // SAFETY: only this thread leaves the namespace; nobody else relies on its network.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)? };
    // A loopback that takes TCP's port and, by policy, no datagram: each rule is a program of iproute2, which the tests need anyway.
    for rule in [
        "link set lo up",
        "rule add ipproto udp table 77 priority 1",
        "route add blackhole default table 77",
        "rule del priority 0",
        "rule add table local priority 2",
    ] {
        let done = std::process::Command::new("ip")
            .args(rule.split(' '))
            .output()?;
        anyhow::ensure!(
            done.status.success(),
            "ip {rule}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(())
}

async fn over_whatever_works() -> anyhow::Result<()> {
    let bench = Bench::new(Carrier::Tcp, &[&noise(8 * MIB, 14)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    goes_over_tcp(&bench, &server, address).await
}

/// The way that a firewall blocks UDP mostly: nobody answers. Here that is a port where datagrams come to one who never reads them.
#[tokio::test]
async fn where_udp_meets_silence_the_disks_go_over_tcp() -> anyhow::Result<()> {
    let bench = Bench::new(Carrier::Tcp, &[&noise(8 * MIB, 16)])?;
    let (server, behind) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = front.local_addr()?;
    let _silent = std::net::UdpSocket::bind(address)?;
    let forwarding = tokio::spawn(async move {
        while let Ok((mut from, _)) = front.accept().await {
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    let outcome = goes_over_tcp(&bench, &server, address).await;
    forwarding.abort();
    outcome
}

async fn goes_over_tcp(bench: &Bench, server: &Server, address: SocketAddr) -> anyhow::Result<()> {
    let config = SendConfig {
        carrier: Preference::Probe { broken: None },
        ..bench.config(address, 1, None)
    };
    let began = std::time::Instant::now();
    let progress = watch::channel(SendProgress::default()).0;
    let report = send(config, CancellationToken::new(), progress).await?;
    let took = began.elapsed();
    // Two seconds of silence, and the rest for a busy machine.
    assert!(took < Duration::from_secs(6), "{took:?}");
    let choice = report.progress.carrier.context("a carrier was chosen")?;
    assert_eq!(
        (choice.carrier, choice.reason),
        (Carrier::Tcp, Reason::OtherSilent)
    );
    let status = server.status().borrow().clone();
    assert_eq!(status.carrier, Some(Carrier::Tcp));
    let reason = status.carrier_reason;
    assert!(reason.contains("UDP"), "{reason}");
    bench.check_targets()?;
    Ok(())
}

#[tokio::test]
async fn a_pass_over_a_changed_set_reads_that_and_what_is_missing() -> anyhow::Result<()> {
    let bench = Bench::new(Carrier::Tcp, &[&noise(6 * MIB + 5, 17)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let pass = async |changed| {
        let mut config = bench.config(address, 1, None);
        config.disks[0].candidates = Candidates::Changed(changed);
        let progress = watch::channel(SendProgress::default()).0;
        send(config, CancellationToken::new(), progress).await
    };
    let first = pass(Vec::new()).await?;
    assert_eq!(
        first.progress.bytes_payload,
        6 * MIB + 5,
        "the receiver had nothing"
    );
    flip(&bench.disks[0].0, 3 * MIB + 7)?;
    let (start, end) = (3 * MIB, 3 * MIB + 100);
    let second = pass(vec![Extent { start, end }]).await?;
    assert_eq!(second.progress.bytes_payload, MIB);
    assert_eq!(second.progress.bytes_equal, 5 * MIB + 5);
    assert_ne!(first.roots, second.roots);
    bench.check_targets()?;
    Ok(())
}

#[tokio::test]
async fn a_probe_measures_both_and_one_that_broke_is_left_alone() -> anyhow::Result<()> {
    let mut bench = Bench::new(Carrier::Quic, &[&noise(2 * MIB, 15)])?;
    bench.checksum = false;
    // Room that is taken but not written: it may be data for all that the choice knows, and costs nothing to read.
    bench.disks[0].1 = 2100 * MIB;
    let disk = std::fs::File::options()
        .write(true)
        .open(&bench.disks[0].0)?;
    rustix::fs::fallocate(&disk, rustix::fs::FallocateFlags::empty(), 0, 2100 * MIB)?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let over = async |carrier| {
        let config = SendConfig {
            carrier,
            ..bench.config(address, 1, None)
        };
        let progress = watch::channel(SendProgress::default()).0;
        let report = send(config, CancellationToken::new(), progress).await?;
        let choice = report.progress.carrier.context("a carrier was chosen")?;
        assert_eq!(server.status().borrow().carrier, Some(choice.carrier));
        anyhow::Ok(choice)
    };
    for broken in [Carrier::Quic, Carrier::Tcp] {
        let choice = over(Preference::Probe {
            broken: Some(broken),
        })
        .await?;
        assert_eq!(
            (choice.carrier, choice.reason),
            (broken.other(), Reason::OtherBroke)
        );
    }
    // On a machine that is busy with other tests a carrier may come too late to be measured.
    for _ in 0..20 {
        if let Reason::Measured { quic, tcp } = over(Preference::Measure).await?.reason
            && quic > 0
            && tcp > 0
        {
            return Ok(());
        }
    }
    panic!("twenty transfers and no measurement");
}
