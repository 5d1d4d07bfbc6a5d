//! A small load test, whole: its own Wherry, its agents, its report.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

#[test]
fn limits_hold_under_load_and_every_disk_is_right() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let arguments = "loadtest jobs --tenants 2 --jobs 8 --running-limit 1 --disk-mib 8 --timeout-secs 120 --json";
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(arguments.split(' '))
        .arg("--work-dir")
        .arg(folder.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    ensure!(output.status.success(), "{said}\n{report:#}");
    ensure!(report["faults"] == serde_json::json!([]), "{report:#}");
    for figure in ["jobs_created", "jobs_finished", "images_compared"] {
        ensure!(report[figure] == 8, "{figure}: {report:#}");
    }
    let most = report["most_running"]
        .as_object()
        .context("who ran how many")?;
    ensure!(
        most.len() == 2 && most.values().all(|most| *most == 1),
        "{report:#}"
    );
    for times in ["start_latency", "run_time"] {
        ensure!(
            report[times]["count"] == 8 && report[times]["p50_ms"].as_f64() > Some(0.0),
            "{report:#}"
        );
    }
    let left = std::fs::read_dir(folder.path())?.count();
    ensure!(left == 0, "{left} files are left in its work directory");
    Ok(())
}
