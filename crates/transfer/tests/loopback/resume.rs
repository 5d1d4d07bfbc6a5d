//! Transfers that end before their time: what is kept, and what is sent again.

use std::os::unix::fs::FileExt as _;

use domain::disk::DiskIndex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::sender::{SendProgress, send};
use transport::Kind;

use crate::bench::{Bench, MIB, PATIENCE, durable, noise, wait_for};

over_both_transports!(
    after_a_receiver_fell_only_the_rest_is_sent,
    a_receipt_is_taken_back_when_its_disk_is_written_again,
    a_halt_keeps_what_was_copied_and_the_same_epoch_may_go_on,
);

async fn after_a_receiver_fell_only_the_rest_is_sent(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(24 * MIB, 3)])?;
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

async fn a_receipt_is_taken_back_when_its_disk_is_written_again(
    transport: Kind,
) -> anyhow::Result<()> {
    let mut bench = Bench::new(transport, &[&noise(6 * MIB, 11)])?;
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
        server.proven(DiskIndex(0)).is_none(),
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
    transport: Kind,
) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(12 * MIB, 13)])?;
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
