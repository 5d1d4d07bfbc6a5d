//! Disks that fail.

use domain::FailureCode;
use transfer::Carrier;

use crate::bench::{Bench, MIB, noise};

over_both_carriers!(a_full_target_says_so_and_counts_nothing,);

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
