//! Disks that fail.

use std::sync::Arc;

use chunks::ByteRange;
use domain::FailureCode;
use domain::disk::DiskIndex;
use domain::parameters::BadSectors;
use source::faulty::{Faults, FaultySources};
use transfer::manifest;
use transport::Kind;

use crate::bench::{Bench, MIB, noise, write_manifest};

over_both_transports!(
    a_full_target_says_so_and_counts_nothing,
    bad_sectors_end_the_transfer_or_arrive_as_zeros,
);

/// A full target: a small tmpfs, which only root can mount.
async fn a_full_target_says_so_and_counts_nothing(transport: Kind) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return Ok(());
    }
    let bench = Bench::new(transport, &[&noise(16 * MIB, 9)])?;
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

async fn bad_sectors_end_the_transfer_or_arrive_as_zeros(transport: Kind) -> anyhow::Result<()> {
    let mut source = noise(4 * MIB, 18);
    let mut bench = Bench::new(transport, &[&source])?;
    let faults = Faults::new(512);
    // In the second chunk, and across the end of the third.
    faults.lose(MIB + 700..MIB + 701);
    faults.lose(3 * MIB - 1..3 * MIB + 1);
    let lost = [(MIB + 512, MIB + 1024), (3 * MIB - 512, 3 * MIB + 512)]
        .map(|(start, end)| ByteRange { start, end });
    bench.sources = Arc::new(FaultySources(vec![faults.clone()]));
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let ended = bench
        .send(address, 1)
        .await
        .expect_err("it has bad sectors");
    assert_eq!(ended.code(), FailureCode::SourceDiskUnreadable);
    assert!(!ended.is_retryable());
    let text = ended.to_string();
    let path = bench.disks[0].0.display().to_string();
    let is_named = text.contains(&path) && text.contains("bytes at byte ");
    assert!(is_named && text.contains("bad_sectors: zero"), "{text}");
    assert!(!server.status().borrow().is_complete());

    bench.bad_sectors = BadSectors::Zero;
    let report = bench.send(address, 1).await?;
    for range in &lost {
        let (start, end) = (usize::try_from(range.start)?, usize::try_from(range.end)?);
        source[start..end].fill(0);
    }
    let target = server.disk_path(DiskIndex(0));
    anyhow::ensure!(std::fs::read(&target)?[..source.len()] == source[..]);
    let manifest = bench.directory.path().join("manifest");
    write_manifest(&server, DiskIndex(0), &manifest)?;
    let head = manifest::verify(&target, &manifest)?;
    assert_eq!(
        (head.root, head.unreadable.as_slice()),
        (report.roots[0].1, &lost[..])
    );
    server.shutdown().await?;

    // Another receiver knows it from the map, and nothing is sent again.
    let (server, address) = bench.server()?;
    server.admit(bench.admission(2)).await?;
    let disk = server.status().borrow().disks[0];
    assert_eq!((disk.unreadable_ranges, disk.unreadable_bytes), (2, 1536));
    let again = bench.send(address, 2).await?;
    assert_eq!(again.progress.bytes_equal, 4 * MIB);
    assert_eq!(again.roots, report.roots);

    // What can be read after all replaces the zeros.
    faults.heal();
    let healed = bench.send(address, 2).await?;
    assert_eq!(healed.progress.bytes_payload, 3 * MIB);
    bench.check_targets()?;
    let disk = server.status().borrow().disks[0];
    assert_eq!((disk.unreadable_ranges, disk.unreadable_bytes), (0, 0));
    write_manifest(&server, DiskIndex(0), &manifest)?;
    assert_eq!(manifest::verify(&target, &manifest)?.unreadable, []);
    Ok(())
}
