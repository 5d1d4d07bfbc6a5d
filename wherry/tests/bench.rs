//! `wherry bench transfer`: two real processes copy a disk over loopback.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

const MIB: usize = 1 << 20;

fn bench(directory: &std::path::Path, flags: &str) -> anyhow::Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["bench", "transfer", "--from", "from", "--to", "to"])
        .args(flags.split_whitespace())
        .current_dir(directory)
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "wherry bench transfer {flags}: {complaint}"
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_measured_transfer_copies_the_disk_and_says_what_it_took() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut disk: Vec<u8> = (0..3 * MIB as u32 / 4).flat_map(u32::to_le_bytes).collect();
    disk.resize(5 * MIB + 17, 0);
    std::fs::write(directory.path().join("from"), &disk)?;

    let flags = "--link 80mbit --level 0 --streams 3 --checksum --json";
    let report: Value = serde_json::from_str(&bench(directory.path(), flags)?)?;
    ensure!(
        std::fs::read(directory.path().join("to"))? == disk,
        "the target is the source"
    );
    ensure!(report["bytes_logical"] == disk.len(), "{report:#}");
    ensure!(report["bytes_payload"] == 3 * MIB, "{report:#}");
    ensure!(
        report["settings"]["link_bytes_per_sec"] == 10_000_000,
        "{report:#}"
    );
    ensure!(
        report["root"].as_str().is_some_and(|root| root.len() == 64),
        "{report:#}"
    );
    // 3 MiB at 10 MB/s.
    let wall = report["wall_secs"].as_f64().unwrap_or(0.0);
    ensure!(wall >= 0.25, "{report:#}");

    let text = bench(
        directory.path(),
        "--link 1gbit --transport tcp --streams 3 --connections 2",
    )?;
    for part in [
        "tcp: asked for",
        "settings         from to to, level of the sender's choice, streams 3, connections 2, link 1gbit",
    ] {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn a_disk_that_was_not_written_since_is_not_read_again() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let source = directory.path().join("from");
    std::fs::write(&source, vec![7; 3 * MIB])?;
    // Two writes in one tick of the clock leave the same times, so a file must have rested.
    std::thread::sleep(Duration::from_millis(1200));
    let read = |free_space: &str| -> anyhow::Result<Value> {
        let flags = format!("--keep --json --free-space {free_space}");
        let report: Value = serde_json::from_str(&bench(directory.path(), &flags)?)?;
        Ok(report["bytes_read"].clone())
    };
    ensure!(read("copy")? == 3 * MIB);
    ensure!(read("copy")? == 0);
    ensure!(
        read("skip")? == 3 * MIB,
        "what was left out of one copy may be data in another"
    );
    std::fs::write(&source, vec![7; 3 * MIB])?;
    ensure!(
        read("skip")? == 3 * MIB,
        "what is written may be the same, and is read"
    );
    Ok(())
}
