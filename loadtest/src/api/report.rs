//! The result of a load on the API.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::cpu::CpuSeconds;
use super::drive::Driven;
use super::mix::Mix;
use crate::figures::{Machine, Percentiles};

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The settings of the test.
    pub settings: Settings,
    /// The machine that the test ran on.
    pub machine: Machine,
    /// Calls that were answered, rightly or not.
    pub calls: usize,
    /// Calls answered per second.
    pub calls_per_sec: f64,
    /// Time from when a call was due to its answer, over all calls.
    pub latency: Percentiles,
    /// The same for each kind of call.
    pub operations: Vec<OperationFigures>,
    /// Processor time of the service, where it is this test's own.
    pub cpu_secs: Option<CpuSeconds>,
    /// Calls for each second of processor time that the service used, its database included.
    pub calls_per_cpu_sec: Option<f64>,
    /// Processor time of the caller itself, which shares the machine.
    pub caller_cpu_secs: f64,
    /// Answers that should have been others, by what was wrong.
    pub faults: BTreeMap<String, u64>,
}

/// Latencies of one kind of call.
#[derive(Debug, Clone, Serialize)]
pub struct OperationFigures {
    /// Name of the operation.
    pub name: &'static str,
    /// Latencies of the operation.
    pub latency: Percentiles,
}

/// The settings of the test.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Calls a second; 0 is as many as are answered.
    pub rate: f64,
    /// Duration of the load in seconds.
    pub duration_secs: u64,
    /// Calls under way at once.
    pub connections: u32,
    /// Kind of calls.
    pub mix: Mix,
    /// Sources, and as many jobs, in the database; 0 where it is not this test's own.
    pub rows: u32,
}

impl Report {
    pub(super) fn of(
        settings: Settings,
        machine: Machine,
        driven: Driven,
        cpu_secs: Option<CpuSeconds>,
        caller_cpu_secs: f64,
    ) -> Self {
        let calls = driven.calls();
        let operations = driven.times.iter().map(|(kind, times)| OperationFigures {
            name: kind.name(),
            latency: Percentiles::of(times.iter().copied()),
        });
        Self {
            settings,
            machine,
            calls,
            calls_per_sec: calls as f64 / driven.elapsed.as_secs_f64(),
            operations: operations.collect(),
            latency: Percentiles::of(driven.times.into_values().flatten()),
            calls_per_cpu_sec: cpu_secs
                .map(|cpu| cpu.total())
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| calls as f64 / seconds),
            cpu_secs,
            caller_cpu_secs,
            faults: driven.faults,
        }
    }

    /// Returns true if every answer was right.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        let rate = match settings.rate {
            0.0 => "as many calls as are answered".to_owned(),
            rate => format!("{rate} calls/s"),
        };
        writeln!(
            f,
            "Asked for    {rate} for {} s, {} at once; {} sources and jobs in the database",
            settings.duration_secs, settings.connections, settings.rows
        )?;
        writeln!(f, "Machine      {}", self.machine)?;
        writeln!(
            f,
            "Answered     {} calls, {:.0} a second",
            self.calls, self.calls_per_sec
        )?;
        if let (Some(cpu), Some(each)) = (self.cpu_secs, self.calls_per_cpu_sec) {
            writeln!(
                f,
                "Processor    {:.1} s of Wherry, {:.1} s of its servers, {:.1} s of the caller; {each:.0} calls a second per core of the service",
                cpu.wherry, cpu.servers, self.caller_cpu_secs
            )?;
        }
        writeln!(
            f,
            "\n{:<42}{:>8}{:>9}{:>9}{:>9}{:>9}",
            "milliseconds", "count", "p50", "p90", "p99", "max"
        )?;
        let each = self.operations.iter().map(|row| (row.name, &row.latency));
        for (name, times) in each.chain([("all calls", &self.latency)]) {
            writeln!(
                f,
                "{name:<42}{:>8}{:>9.2}{:>9.2}{:>9.2}{:>9.2}",
                times.count, times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms
            )?;
        }
        if self.is_clean() {
            return write!(f, "\nEvery answer was right.");
        }
        write!(f, "\nWrong answers:")?;
        for (fault, count) in &self.faults {
            write!(f, "\n  {count} x {fault}")?;
        }
        Ok(())
    }
}
