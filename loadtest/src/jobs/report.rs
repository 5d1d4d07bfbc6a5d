//! The result of a load test.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::figures::{Machine, Percentiles};
use crate::history::Event;

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The settings of the test.
    pub settings: Settings,
    /// The machine that the test ran on.
    pub machine: Machine,
    /// Jobs that the API accepted.
    pub jobs_created: usize,
    /// Jobs that finished.
    pub jobs_finished: usize,
    /// Finished jobs whose image equals its source byte for byte. Less than `jobs_finished` where images lie on other
    /// machines.
    pub images_compared: usize,
    /// Time from the first start to the last finish, in seconds.
    pub elapsed_secs: f64,
    /// Starts that the API accepted, per second between the first and the last.
    pub offered_per_sec: f64,
    /// Jobs finished per second, from the first start to the last finish.
    pub achieved_per_sec: f64,
    /// Most jobs with a slot at once, by tenant.
    pub most_running: BTreeMap<String, usize>,
    /// Time from the start of a job until it has a slot.
    pub queue_time: Percentiles,
    /// Time from the start of a job until it copies.
    pub start_latency: Percentiles,
    /// Time from the start of a job until it is finished.
    pub run_time: Percentiles,
    /// Calls of the API, as their client saw them.
    pub call_time: Percentiles,
    /// Calls that failed for the moment and were sent again, by action and why.
    pub retries: BTreeMap<String, usize>,
    /// Everything that is wrong, in sentences. Empty when all is well.
    pub faults: Vec<String>,
}

/// The settings of the test.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Tenants.
    pub tenants: usize,
    /// Jobs, of all tenants together.
    pub jobs: usize,
    /// Jobs that each tenant may run at once.
    pub running_limit: usize,
    /// Sources, of all tenants together.
    pub sources: usize,
    /// Size of each source's disk in MiB.
    pub disk_mib: u64,
}

/// Figures that the history gives, over the jobs of these tenants.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) finished: usize,
    pub(super) elapsed_secs: f64,
    pub(super) offered_per_sec: f64,
    pub(super) achieved_per_sec: f64,
    pub(super) most_running: BTreeMap<String, usize>,
    pub(super) queue_time: Percentiles,
    pub(super) start_latency: Percentiles,
    pub(super) run_time: Percentiles,
}

/// Times at which a job reached its states.
#[derive(Default)]
struct Times {
    started: Option<DateTime<Utc>>,
    admitted: Option<DateTime<Utc>>,
    copying: Option<DateTime<Utc>>,
    finished: Option<DateTime<Utc>>,
}

impl Figures {
    pub(super) fn of(history: &[Event]) -> Self {
        let mut jobs: BTreeMap<&str, Times> = BTreeMap::new();
        let mut slots: BTreeMap<&str, std::collections::BTreeSet<&str>> = BTreeMap::new();
        let mut most_running: BTreeMap<String, usize> = BTreeMap::new();
        for row in history {
            let times = jobs.entry(&row.job_id).or_default();
            let running = slots.entry(&row.tenant).or_default();
            if row.starts() {
                times.started.get_or_insert(row.time);
            } else if row.gives_slot() {
                times.admitted.get_or_insert(row.time);
                running.insert(&row.job_id);
            } else if row.to == "syncing" {
                times.copying.get_or_insert(row.time);
            } else if row.to == "finished" {
                times.finished.get_or_insert(row.time);
            }
            if matches!(
                row.to.as_str(),
                "finished" | "stopped" | "in_error" | "deleting"
            ) {
                running.remove(row.job_id.as_str());
            }
            let most = most_running.entry(row.tenant.clone()).or_default();
            *most = (*most).max(running.len());
        }
        let starts: Vec<DateTime<Utc>> = jobs.values().filter_map(|times| times.started).collect();
        let ends: Vec<DateTime<Utc>> = jobs.values().filter_map(|times| times.finished).collect();
        let first_start = starts.iter().min();
        let elapsed_secs = seconds(first_start, ends.iter().max());
        let since_start = |end: fn(&Times) -> Option<DateTime<Utc>>| {
            Percentiles::of(
                jobs.values()
                    .filter_map(|times| (end(times)? - times.started?).to_std().ok()),
            )
        };
        Self {
            finished: ends.len(),
            elapsed_secs,
            offered_per_sec: per_second(
                starts.len().saturating_sub(1),
                seconds(first_start, starts.iter().max()),
            ),
            achieved_per_sec: per_second(ends.len(), elapsed_secs),
            queue_time: since_start(|times| times.admitted),
            start_latency: since_start(|times| times.copying),
            run_time: since_start(|times| times.finished),
            most_running,
        }
    }
}

fn seconds(from: Option<&DateTime<Utc>>, to: Option<&DateTime<Utc>>) -> f64 {
    match (from, to) {
        (Some(from), Some(to)) => (*to - *from).as_seconds_f64(),
        _ => 0.0,
    }
}

fn per_second(count: usize, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

impl Report {
    /// Returns true if no fault was found.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (settings, machine) = (&self.settings, &self.machine);
        writeln!(
            f,
            "Asked for    {} jobs of {} tenants, {} running at once each; {} sources with {} MiB",
            settings.jobs,
            settings.tenants,
            settings.running_limit,
            settings.sources,
            settings.disk_mib
        )?;
        writeln!(f, "Machine      {machine}")?;
        writeln!(
            f,
            "Jobs         {} created, {} finished in {:.1} s; {} images equal their source byte for byte",
            self.jobs_created, self.jobs_finished, self.elapsed_secs, self.images_compared
        )?;
        writeln!(
            f,
            "Rates        {:.2} jobs/s offered, {:.2} jobs/s achieved",
            self.offered_per_sec, self.achieved_per_sec
        )?;
        let most: Vec<String> = self
            .most_running
            .iter()
            .map(|(tenant, most)| format!("{tenant} {most}"))
            .collect();
        writeln!(f, "At once      {}", most.join(", "))?;
        writeln!(
            f,
            "\n{:<24}{:>8}{:>10}{:>10}{:>10}{:>10}",
            "milliseconds", "count", "p50", "p90", "p99", "max"
        )?;
        let rows = [
            ("start to slot", &self.queue_time),
            ("start to copying", &self.start_latency),
            ("start to finished", &self.run_time),
            ("calls of the API", &self.call_time),
        ];
        for (name, times) in rows {
            writeln!(
                f,
                "{name:<24}{:>8}{:>10.0}{:>10.0}{:>10.0}{:>10.0}",
                times.count, times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms
            )?;
        }
        for (why, count) in &self.retries {
            writeln!(f, "sent again   {count} x {why}")?;
        }
        writeln!(f)?;
        if self.is_clean() {
            return write!(f, "All limits held, no job was lost or doubled.");
        }
        write!(f, "{} faults:", self.faults.len())?;
        for fault in &self.faults {
            write!(f, "\n  - {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_the_history() {
        let row = |seq: i64, second: i64, job: &str, event: &str, from: &str, to: &str| Event {
            seq,
            time: DateTime::from_timestamp(second, 0).unwrap(),
            tenant: "a".to_owned(),
            job_id: job.to_owned(),
            event: event.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            run: 1,
            epoch: 0,
        };
        let history = [
            row(1, 10, "j-1", "start", "ready", "preparing"),
            row(2, 11, "j-1", "start", "preparing", "preparing"),
            row(3, 12, "j-2", "start", "ready", "preparing"),
            row(4, 13, "j-1", "prepared", "preparing", "syncing"),
            row(5, 20, "j-1", "finish", "cleaning", "finished"),
        ];
        let figures = Figures::of(&history);
        assert_eq!((figures.finished, figures.elapsed_secs), (1, 10.0));
        assert_eq!(
            (figures.offered_per_sec, figures.achieved_per_sec),
            (0.5, 0.1)
        );
        assert_eq!(figures.most_running["a"], 1);
        assert_eq!(
            (
                figures.queue_time.count,
                figures.start_latency.count,
                figures.run_time.count
            ),
            (1, 1, 1)
        );
        assert!((figures.start_latency.max_ms - 3000.0).abs() < 10.0);
    }
}
