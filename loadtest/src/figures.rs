//! The parts of every report: the machine, and percentiles of times.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that a figure can be, one day, in microseconds.
const LONGEST_MICROS: u64 = 86_400_000_000;

/// The machine that a test ran on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub processors: usize,
    /// Name of the processor.
    pub processor: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Set if this is a release build: figures of others mean little.
    pub is_release_build: bool,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of measurements.
    pub count: u64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 90 % took no longer.
    pub p90_ms: f64,
    /// 99 % took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Percentiles {
    /// Percentiles of these times.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut histogram =
            Histogram::<u64>::new_with_max(LONGEST_MICROS, 3).expect("the bounds are sound");
        for time in times {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            histogram.saturating_record(micros);
        }
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p90_ms: ms(histogram.value_at_quantile(0.9)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        }
    }
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let line = |path: &str, name: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let value = text.lines().find_map(|line| {
                line.strip_prefix(name)?
                    .trim_start()
                    .strip_prefix(':')
                    .map(str::to_owned)
            });
            value.unwrap_or_default().trim().to_owned()
        };
        let memory_kib = line("/proc/meminfo", "MemTotal")
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap_or(0);
        Self {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            processor: line("/proc/cpuinfo", "model name"),
            memory_mib: memory_kib / 1024,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            is_release_build: !cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = if self.is_release_build {
            "release"
        } else {
            "debug build: its figures mean little"
        };
        write!(
            f,
            "{} processors ({}), {} MiB, Linux {}, {build}",
            self.processors, self.processor, self.memory_mib, self.kernel
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_their_precision() {
        let times = Percentiles::of((1..=1000).map(Duration::from_millis));
        assert_eq!(times.count, 1000);
        for (found, right) in [
            (times.p50_ms, 500.0),
            (times.p90_ms, 900.0),
            (times.p99_ms, 990.0),
            (times.max_ms, 1000.0),
        ] {
            assert!(
                (found - right).abs() / right < 0.002,
                "{found} is not {right}"
            );
        }
        assert_eq!(Percentiles::of([]), Percentiles::default());
    }
}
