//! The text log of a process contains text from other parties, and shows it on one line.

use std::process::Command;

use domain::printable::{EVIL, is_printable};
use telemetry::{LogFormat, TelemetryConfig};

/// Set in the process that writes the log.
const WRITES: &str = "TEST_WRITES_LOG";

#[test]
fn foreign_text_is_one_line_of_the_text_log() {
    if std::env::var_os(WRITES).is_some() {
        return write_log();
    }
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "--nocapture",
            "foreign_text_is_one_line_of_the_text_log",
        ])
        .env(WRITES, "1")
        .output()
        .expect("this test runs again");
    let log = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("marker")).collect();
    assert_eq!(lines.len(), 3 * EVIL.len(), "{log}");
    for line in log.lines() {
        assert!(is_printable(line), "{line:?}");
        assert!(!line.starts_with("forged"), "{log}");
    }
}

fn write_log() {
    let _guard = telemetry::init(&TelemetryConfig {
        log_format: LogFormat::Text,
        ..TelemetryConfig::default()
    });
    for evil in EVIL {
        tracing::info!(text = %evil, "marker");
        tracing::warn!("marker {evil}");
        let error = std::io::Error::other(*evil);
        tracing::info_span!("work", evil).in_scope(|| {
            tracing::error!(error = &error as &dyn std::error::Error, "marker");
        });
    }
}
