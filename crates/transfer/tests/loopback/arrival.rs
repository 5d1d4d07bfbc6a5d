//! Disks that arrive, and how little crosses the wire for them.

use chunks::ByteRange;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::manifest;
use transfer::plan::Candidates;
use transfer::sender::{Compression, SendConfig, SendProgress, send};
use transport::Kind;

use crate::bench::{Bench, MIB, flip, noise, write_manifest};

over_both_transports!(
    disks_arrive_whole_with_receipts_and_manifests,
    one_percent_of_changed_chunks_costs_one_percent_of_the_bytes,
    eight_tebibytes_of_nothing_cost_next_to_nothing,
    compressed_disks_arrive_whole_and_small,
);

async fn disks_arrive_whole_with_receipts_and_manifests(transport: Kind) -> anyhow::Result<()> {
    let mut first = noise(5 * MIB + 77, 1);
    first[(2 * MIB) as usize..(3 * MIB) as usize].fill(0);
    let bench = Bench::new(
        transport,
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
        let path = bench.directory.path().join(format!("manifest-{index}"));
        write_manifest(&server, *index, &path)?;
        let head = manifest::verify(&server.disk_path(*index), &path)?;
        assert_eq!(head.root, *root);
    }
    server.shutdown().await?;
    Ok(())
}

async fn one_percent_of_changed_chunks_costs_one_percent_of_the_bytes(
    transport: Kind,
) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(200 * MIB, 12)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let first = bench.send(address, 1).await?.progress;
    for pass in 1..=2 {
        for chunk in [7, 107] {
            flip(&bench.disks[0].0, (chunk + pass) * MIB + 99)?;
        }
        let later = bench.send(address, 1).await?.progress;
        assert_eq!(later.bytes_payload, 2 * MIB, "pass {pass}");
        assert_eq!(later.bytes_equal, 198 * MIB);
        let share = later.bytes_wire as f64 / first.bytes_wire as f64;
        assert!(share < 0.0101, "pass {pass} sent {share} of the first");
    }
    bench.check_targets()?;
    Ok(())
}

async fn eight_tebibytes_of_nothing_cost_next_to_nothing(transport: Kind) -> anyhow::Result<()> {
    let mut bench = Bench::new(transport, &[&[]])?;
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

async fn compressed_disks_arrive_whole_and_small(transport: Kind) -> anyhow::Result<()> {
    let text: Vec<u8> = b"all work and no play makes a dull disk\n"
        .iter()
        .copied()
        .cycle()
        .take(6 * MIB as usize)
        .collect();
    let bench = Bench::new(transport, &[&[text, noise(2 * MIB, 7)].concat()])?;
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

#[tokio::test]
async fn a_pass_over_a_changed_set_reads_that_and_what_is_missing() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Tcp, &[&noise(6 * MIB + 5, 17)])?;
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
    let second = pass(vec![ByteRange { start, end }]).await?;
    assert_eq!(second.progress.bytes_payload, MIB);
    assert_eq!(second.progress.bytes_equal, 5 * MIB + 5);
    assert_ne!(first.roots, second.roots);
    bench.check_targets()?;
    Ok(())
}
