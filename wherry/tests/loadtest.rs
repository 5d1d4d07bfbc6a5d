//! Small load tests, whole: their own Wherry, their agents, their reports.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

#[test]
fn limits_hold_under_load_and_every_disk_is_right() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let arguments = "loadtest jobs --tenants 2 --jobs 8 --running-limit 1 --disk-mib 8 --timeout-secs 120 --json";
    let report = report_of(arguments, folder.path())?;
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

#[test]
fn calls_of_every_kind_are_answered_rightly_at_the_rate_asked_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let arguments = "loadtest api --tenants 2 --rows 1000 --rate 40 --duration-secs 5 --connections 4 --mix write --json";
    let report = report_of(arguments, folder.path())?;
    ensure!(report["faults"] == serde_json::json!({}), "{report:#}");
    ensure!(report["calls"] == 200, "{report:#}");
    let operations = report["operations"].as_array().context("its operations")?;
    ensure!(operations.len() == 8, "{report:#}");
    for operation in operations {
        ensure!(
            operation["latency"]["p99_ms"].as_f64() > Some(0.0),
            "{report:#}"
        );
    }
    ensure!(
        report["calls_per_cpu_sec"].as_f64() > Some(0.0),
        "{report:#}"
    );
    Ok(())
}

/// Returns the report of a load test that must find nothing wrong.
fn report_of(arguments: &str, work_dir: &Path) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(arguments.split(' '))
        .arg("--work-dir")
        .arg(work_dir)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    ensure!(output.status.success(), "{said}\n{report:#}");
    Ok(report)
}
