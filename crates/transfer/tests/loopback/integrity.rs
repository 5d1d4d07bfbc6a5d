//! Bits that flip.

use anyhow::Context as _;
use domain::FailureCode;
use domain::disk::DiskIndex;
use transfer::manifest;
use transfer::manifest::ManifestError;
use transport::Kind;

use crate::bench::{Bench, MIB, durable, flip, noise, write_manifest};
use crate::flipping::{self, Way};

over_both_transports!(
    a_flipped_bit_on_the_target_is_found_and_mended,
    a_flipped_bit_in_disk_or_manifest_fails_the_image,
    a_flipped_bit_on_the_wire_is_healed,
    after_a_fall_what_differs_is_found_without_a_checksum,
);

async fn a_flipped_bit_on_the_target_is_found_and_mended(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(4 * MIB, 5)])?;
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

async fn a_flipped_bit_in_disk_or_manifest_fails_the_image(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(3 * MIB + 9, 6)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    bench.send(address, 1).await?;
    let (disk, path) = (
        server.disk_path(DiskIndex(0)),
        bench.directory.path().join("manifest"),
    );
    write_manifest(&server, DiskIndex(0), &path)?;
    for offset in [0, 3 * MIB + 8, 3 * MIB + 9, 6 * MIB + 8] {
        flip(&disk, offset)?;
        assert!(
            manifest::verify(&disk, &path).is_err(),
            "a flipped bit at {offset}"
        );
        flip(&disk, offset)?;
    }
    manifest::verify(&disk, &path)?;
    // Every bit of it.
    let written = std::fs::read(&path)?;
    for bit in 0..written.len() * 8 {
        let mut damaged = written.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, damaged)?;
        let verified = manifest::verify(&disk, &path);
        anyhow::ensure!(
            matches!(
                verified,
                Err(ManifestError::Damaged { .. } | ManifestError::Malformed { .. })
            ),
            "bit {bit} of the manifest was flipped: {verified:?}"
        );
    }
    Ok(())
}

/// In handshakes, in what the two say to each other, in data, and both ways.
async fn a_flipped_bit_on_the_wire_is_healed(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(3 * MIB + 9, 8)])?;
    let places = [
        (Way::ToReceiver, 60),
        (Way::ToReceiver, 1500),
        (Way::ToReceiver, 3000),
        (Way::ToReceiver, 5000),
        (Way::ToReceiver, 200_000),
        (Way::ToReceiver, 2_500_000),
        (Way::ToSender, 60),
        (Way::ToSender, 700),
        (Way::ToSender, 1400),
        (Way::ToSender, 2400),
    ];
    for (epoch, (way, after)) in (1..).zip(places) {
        let (server, address) = bench.server()?;
        server.admit(bench.admission(epoch)).await?;
        let path = flipping::Path::to(address, way, after).await?;
        let mut attempts = 0;
        let report = loop {
            attempts += 1;
            match bench.send(path.address, epoch).await {
                Ok(report) => break report,
                Err(error) => anyhow::ensure!(
                    error.is_retryable() && attempts < 3,
                    "attempt {attempts}, {way:?} after {after} bytes: {error}"
                ),
            }
        };
        let place = format!("{way:?} after {after} bytes, {attempts} attempts");
        anyhow::ensure!(path.flip.is_done(), "nothing was flipped {place}");
        let status = server.status().borrow().clone();
        let receipt = status.disks[0].receipt.context("the sender has its word")?;
        assert_eq!(receipt.root(), report.roots[0].1, "{place}");
        bench.check_targets().context(place)?;
        server.shutdown().await?;
        // Each begins with nothing.
        std::fs::remove_file(bench.instance().join("disk-0.raw"))?;
    }
    Ok(())
}

/// A receiver that dies silently may have lost what the disk said it had kept. That is read again, whether or not the
/// job asks for `Checksum`.
async fn after_a_fall_what_differs_is_found_without_a_checksum(
    transport: Kind,
) -> anyhow::Result<()> {
    let mut bench = Bench::new(transport, &[&noise(4 * MIB, 5)])?;
    bench.checksum = false;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    bench.send(address, 1).await?;
    let disk = server.disk_path(DiskIndex(0));
    drop(server);
    flip(&disk, 2 * MIB + 5)?;

    let (server, address) = bench.server()?;
    server.admit(bench.admission(2)).await?;
    assert_eq!(durable(&server.status().borrow()), 3 * MIB);
    let mended = bench.send(address, 2).await?;
    assert_eq!(mended.progress.bytes_payload, MIB, "only what differs");
    bench.check_targets()?;
    Ok(())
}
