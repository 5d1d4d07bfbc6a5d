//! The kernel's numbers about this process, read at each scrape.

use std::sync::OnceLock;
use std::time::Instant;

use crate::{Metric, counter, gauge};

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Marks the start of the process's uptime.
pub(crate) fn mark_start() {
    STARTED.get_or_init(Instant::now);
}

/// Sets all metrics of the process. Values that `/proc` does not contain are left out.
pub(crate) fn record() {
    let uptime = STARTED.get_or_init(Instant::now).elapsed();
    gauge(Metric::ProcessUptimeSeconds, &[]).set(uptime.as_secs_f64());
    gauge(Metric::BuildInfo, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of files are far below 2^52"
        )]
        gauge(Metric::ProcessOpenFiles, &[]).set(entries.count() as f64);
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(bytes) = resident_bytes(&status)
    {
        #[expect(
            clippy::cast_precision_loss,
            reason = "memory sizes are far below 2^52"
        )]
        gauge(Metric::ProcessResidentBytes, &[]).set(bytes as f64);
    }
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some(seconds) = cpu_seconds(&stat)
    {
        counter(Metric::ProcessCpuSeconds, &[]).absolute(seconds);
    }
}

/// Returns `VmRSS:     1234 kB` of `/proc/self/status`, in bytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns `utime` plus `stime`, the 14th and 15th field of `/proc/self/stat`, in whole seconds. The second field is
/// the program's name in parentheses and may contain spaces, so counting starts behind it.
fn cpu_seconds(stat: &str) -> Option<u64> {
    /// Linux reports these in hundredths of a second on every architecture that we run on.
    const TICKS_PER_SECOND: u64 = 100;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 5 6 20 0 1 0 99 1000 10";
        assert_eq!(cpu_seconds(stat), Some(4));
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
