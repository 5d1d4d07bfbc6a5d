//! Bits that flip.

use anyhow::Context as _;
use domain::FailureCode;
use domain::disk::DiskIndex;
use transfer::{Carrier, manifest};

use crate::bench::{Bench, MIB, flip, noise};

over_both_carriers!(
    a_flipped_bit_on_the_target_is_found_and_mended,
    a_flipped_bit_in_disk_or_manifest_fails_the_image,
);

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
