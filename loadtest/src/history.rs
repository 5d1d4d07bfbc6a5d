//! Replays the history of jobs and finds every rule that was broken.
//!
//! The rows are replayed in their order `seq`. A row that gives a job its slot is written after slots were counted. The
//! row of a job that gives its slot back is written before that can be seen. So a limit that is exceeded in the replay
//! was exceeded in fact.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// One row, as `wherry admin history --output json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// Place of the row in the order of all events.
    pub seq: i64,
    /// Time at which its transaction began.
    pub time: DateTime<Utc>,
    /// Name of the tenant.
    pub tenant: String,
    /// Id of the job.
    pub job_id: String,
    /// The kind of event.
    pub event: String,
    /// The state before.
    pub from: String,
    /// The state since.
    pub to: String,
    /// Number of the run.
    pub run: i64,
    /// Epoch of the row.
    pub epoch: i64,
}

impl Event {
    /// Returns true if the job was given its slot: it is started, and its state stays the same.
    pub fn gives_slot(&self) -> bool {
        self.event == "start" && self.from == "preparing" && self.to == "preparing"
    }

    /// Returns true if the tenant, or the schedule, started the job.
    pub fn starts(&self) -> bool {
        self.event == "start" && !self.gives_slot()
    }
}

/// Facts that the history must agree with.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Running jobs that each tenant may have at once, by the tenant's name.
    pub running_limits: BTreeMap<String, usize>,
    /// The source of each job that the API has accepted.
    pub source_of_job: BTreeMap<String, String>,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A tenant ran more jobs at once than it may.
    #[error("tenant {tenant} ran {running} jobs at once, {limit} is its limit (row {seq})")]
    TooManyRunning {
        tenant: String,
        running: usize,
        limit: usize,
        seq: i64,
    },
    /// A job copied, or made its image, without a slot.
    #[error("job {job_id} ran without a slot (row {seq})")]
    RanWithoutSlot { job_id: String, seq: i64 },
    /// A job was given a slot while it had one.
    #[error("job {job_id} was given a slot twice (row {seq})")]
    SlotTwice { job_id: String, seq: i64 },
    /// A job was started while another one of its source was unfinished.
    #[error("source {source_id} had two unfinished jobs, {} and {} (row {seq})", .jobs.0, .jobs.1)]
    SourceShared {
        source_id: String,
        jobs: (String, String),
        seq: i64,
    },
    /// A job was started again, though it was started once by the API.
    #[error("job {job_id} was started twice (row {seq})")]
    StartedTwice { job_id: String, seq: i64 },
    /// A job finished again.
    #[error("job {job_id} finished twice (row {seq})")]
    FinishedTwice { job_id: String, seq: i64 },
    /// A job that the API accepted did not finish.
    #[error("job {job_id} did not finish, it is {state}")]
    NotFinished { job_id: String, state: String },
    /// There is a job that no client created.
    #[error("tenant {tenant} has job {job_id}, which nobody created")]
    Unknown { job_id: String, tenant: String },
    /// A row does not begin where the row before ended.
    #[error("job {job_id} was {state}, and row {seq} says otherwise")]
    Torn {
        job_id: String,
        state: String,
        seq: i64,
    },
    /// A job's epoch went down.
    #[error("the epoch of job {job_id} went down (row {seq})")]
    EpochWentDown { job_id: String, seq: i64 },
    /// A worker moved the job under an epoch whose lease was lost.
    #[error("job {job_id} was moved by a worker that had lost it (row {seq})")]
    LostLeaseUsed { job_id: String, seq: i64 },
}

/// A job as far as it was replayed.
struct Replayed {
    state: String,
    epoch: i64,
    /// The epoch of the last lease that was lost. No epoch is below 0.
    lost_epoch: i64,
    has_slot: bool,
    starts: usize,
    finishes: usize,
}

impl Default for Replayed {
    fn default() -> Self {
        Self {
            state: "ready".to_owned(),
            epoch: 0,
            lost_epoch: -1,
            has_slot: false,
            starts: 0,
            finishes: 0,
        }
    }
}

/// Finds every rule that the history breaks. Rows of tenants without a limit in `expected` are ignored.
pub fn check(expected: &Expected, history: &[Event]) -> Vec<Violation> {
    let mut rows: Vec<&Event> = history
        .iter()
        .filter(|row| expected.running_limits.contains_key(&row.tenant))
        .collect();
    rows.sort_by_key(|row| row.seq);
    let mut replay = Replay {
        expected,
        jobs: BTreeMap::new(),
        slots: BTreeMap::new(),
        unfinished: BTreeMap::new(),
        found: Vec::new(),
        strangers: BTreeSet::new(),
    };
    for row in rows {
        replay.row(row);
    }
    replay.end()
}

struct Replay<'a> {
    expected: &'a Expected,
    jobs: BTreeMap<&'a str, Replayed>,
    /// Jobs with a slot, by tenant.
    slots: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The job of each source that was started and is not finished.
    unfinished: BTreeMap<&'a str, &'a str>,
    strangers: BTreeSet<&'a str>,
    found: Vec<Violation>,
}

impl<'a> Replay<'a> {
    fn row(&mut self, row: &'a Event) {
        let Some(source) = self.expected.source_of_job.get(&row.job_id) else {
            if self.strangers.insert(&row.job_id) {
                self.found.push(Violation::Unknown {
                    job_id: row.job_id.clone(),
                    tenant: row.tenant.clone(),
                });
            }
            return;
        };
        let (job_id, seq) = (row.job_id.clone(), row.seq);
        let job = self.jobs.entry(&row.job_id).or_default();
        if job.state != row.from {
            self.found.push(Violation::Torn {
                job_id: job_id.clone(),
                state: job.state.clone(),
                seq,
            });
        }
        if row.epoch < job.epoch {
            self.found.push(Violation::EpochWentDown {
                job_id: job_id.clone(),
                seq,
            });
        }
        if is_lease_holders(&row.event) && row.epoch <= job.lost_epoch {
            self.found.push(Violation::LostLeaseUsed {
                job_id: job_id.clone(),
                seq,
            });
        }
        if matches!(row.event.as_str(), "lease_lost" | "parked") {
            job.lost_epoch = row.epoch;
        }
        job.epoch = row.epoch;
        row.to.clone_into(&mut job.state);
        if row.starts() {
            job.starts += 1;
            if job.starts > 1 {
                self.found.push(Violation::StartedTwice {
                    job_id: job_id.clone(),
                    seq,
                });
            }
        }
        if row.to == "finished" && row.from != "finished" {
            job.finishes += 1;
            if job.finishes > 1 {
                self.found.push(Violation::FinishedTwice {
                    job_id: job_id.clone(),
                    seq,
                });
            }
        }
        if row.gives_slot() {
            if job.has_slot {
                self.found.push(Violation::SlotTwice { job_id, seq });
            }
            job.has_slot = true;
            self.take_slot(row);
        } else if !is_running(&row.to) {
            job.has_slot = false;
            self.slots
                .entry(&row.tenant)
                .or_default()
                .remove(row.job_id.as_str());
        } else if row.to != "preparing" && !job.has_slot {
            self.found.push(Violation::RanWithoutSlot { job_id, seq });
        }
        self.occupy(row, source);
    }

    /// A source belongs to the job that was started until that is finished or being deleted, with or without a slot.
    fn occupy(&mut self, row: &'a Event, source: &'a str) {
        let holder = self.unfinished.get(source).copied();
        if matches!(row.to.as_str(), "finished" | "deleting") {
            if holder == Some(&row.job_id) {
                self.unfinished.remove(source);
            }
        } else if let Some(other) = holder.filter(|holder| *holder != row.job_id) {
            if row.starts() {
                self.found.push(Violation::SourceShared {
                    source_id: source.to_owned(),
                    jobs: (other.to_owned(), row.job_id.clone()),
                    seq: row.seq,
                });
            }
        } else {
            self.unfinished.insert(source, &row.job_id);
        }
    }

    fn take_slot(&mut self, row: &'a Event) {
        let running = self.slots.entry(&row.tenant).or_default();
        running.insert(&row.job_id);
        let (running, limit) = (running.len(), self.expected.running_limits[&row.tenant]);
        if running > limit {
            self.found.push(Violation::TooManyRunning {
                tenant: row.tenant.clone(),
                running,
                limit,
                seq: row.seq,
            });
        }
    }

    fn end(mut self) -> Vec<Violation> {
        for job_id in self.expected.source_of_job.keys() {
            let job = self.jobs.remove(job_id.as_str()).unwrap_or_default();
            if job.finishes == 0 {
                self.found.push(Violation::NotFinished {
                    job_id: job_id.clone(),
                    state: job.state,
                });
            }
        }
        self.found
    }
}

/// Events that only the holder of a lease may send.
fn is_lease_holders(event: &str) -> bool {
    matches!(
        event,
        "prepared" | "synced" | "processed" | "finish" | "rest"
    )
}

fn is_running(state: &str) -> bool {
    matches!(state, "preparing" | "syncing" | "processing" | "cleaning")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds histories row by row.
    #[derive(Default)]
    struct History(Vec<Event>);

    impl History {
        fn row(
            &mut self,
            job_id: &str,
            event: &str,
            from: &str,
            to: &str,
            epoch: i64,
        ) -> &mut Self {
            let seq = self.0.len() as i64 + 1;
            let (job_id, event, from, to) = (
                job_id.to_owned(),
                event.to_owned(),
                from.to_owned(),
                to.to_owned(),
            );
            let (time, tenant) = (DateTime::UNIX_EPOCH, "a".to_owned());
            self.0.push(Event {
                seq,
                time,
                tenant,
                job_id,
                event,
                from,
                to,
                run: 1,
                epoch,
            });
            self
        }

        fn start(&mut self, job: &str) -> &mut Self {
            self.row(job, "start", "ready", "preparing", 0)
        }

        fn slot(&mut self, job: &str) -> &mut Self {
            self.row(job, "start", "preparing", "preparing", 0)
        }

        fn copy(&mut self, job: &str) -> &mut Self {
            self.row(job, "prepared", "preparing", "syncing", 1)
        }

        fn deliver(&mut self, job: &str) -> &mut Self {
            self.row(job, "synced", "syncing", "processing", 1)
                .row(job, "processed", "processing", "cleaning", 1)
                .row(job, "finish", "cleaning", "finished", 1)
        }

        fn whole(&mut self, job: &str) -> &mut Self {
            self.start(job).slot(job).copy(job).deliver(job)
        }
    }

    fn expected(limit: usize, jobs: &[(&str, &str)]) -> Expected {
        Expected {
            running_limits: BTreeMap::from([("a".to_owned(), limit)]),
            source_of_job: jobs
                .iter()
                .map(|(job, source)| ((*job).to_owned(), (*source).to_owned()))
                .collect(),
        }
    }

    const TWO: [(&str, &str); 2] = [("j-1", "s-1"), ("j-2", "s-2")];

    #[test]
    fn a_sound_history_passes_in_whatever_order_its_rows_are_given() {
        let mut history = History::default();
        history.start("j-1").start("j-2").slot("j-1").copy("j-1");
        // A lost lease returns the run to the queue with its slot.
        history
            .row("j-1", "lease_lost", "syncing", "preparing", 1)
            .row("j-1", "prepared", "preparing", "syncing", 2);
        history
            .row("j-1", "synced", "syncing", "processing", 2)
            .row("j-1", "processed", "processing", "cleaning", 2);
        history.row("j-1", "finish", "cleaning", "finished", 2);
        history.slot("j-2").copy("j-2").deliver("j-2");
        assert_eq!(check(&expected(1, &TWO), &history.0), []);
        history.0.reverse();
        assert_eq!(check(&expected(1, &TWO), &history.0), []);
    }

    #[test]
    fn a_passed_limit_is_caught() {
        let mut history = History::default();
        history.start("j-1").start("j-2").slot("j-1").slot("j-2");
        history
            .copy("j-1")
            .copy("j-2")
            .deliver("j-1")
            .deliver("j-2");
        let too_many = Violation::TooManyRunning {
            tenant: "a".to_owned(),
            running: 2,
            limit: 1,
            seq: 4,
        };
        assert_eq!(check(&expected(1, &TWO), &history.0), [too_many]);
        assert_eq!(check(&expected(2, &TWO), &history.0), []);
    }

    #[test]
    fn two_unfinished_jobs_of_one_source_are_caught() {
        let one_source = [("j-1", "s-1"), ("j-2", "s-1")];
        let shared = |seq| Violation::SourceShared {
            source_id: "s-1".to_owned(),
            jobs: ("j-1".to_owned(), "j-2".to_owned()),
            seq,
        };
        let mut history = History::default();
        history.start("j-1").start("j-2").slot("j-1").slot("j-2");
        history
            .copy("j-1")
            .copy("j-2")
            .deliver("j-1")
            .deliver("j-2");
        assert_eq!(check(&expected(2, &one_source), &history.0), [shared(2)]);

        // A limit of one keeps them from running at once, and the second one still must not exist.
        let mut history = History::default();
        history.start("j-1").slot("j-1").copy("j-1").start("j-2");
        history
            .deliver("j-1")
            .slot("j-2")
            .copy("j-2")
            .deliver("j-2");
        assert_eq!(check(&expected(1, &one_source), &history.0), [shared(4)]);

        let mut history = History::default();
        history.whole("j-1").whole("j-2");
        assert_eq!(check(&expected(1, &one_source), &history.0), []);
    }

    #[test]
    fn a_worker_that_lost_its_lease_and_moves_the_job_is_caught() {
        let mut history = History::default();
        history.start("j-1").slot("j-1").copy("j-1");
        history.row("j-1", "lease_lost", "syncing", "preparing", 1);
        history.copy("j-1");
        let used = |seq| Violation::LostLeaseUsed {
            job_id: "j-1".to_owned(),
            seq,
        };
        let found = check(&expected(1, &TWO[..1]), &history.0);
        assert!(found.contains(&used(5)), "{found:?}");
    }

    #[test]
    fn a_job_without_a_slot_and_one_with_two_are_caught() {
        let mut history = History::default();
        history.start("j-1").copy("j-1");
        let found = check(&expected(1, &TWO[..1]), &history.0);
        assert!(
            found.contains(&Violation::RanWithoutSlot {
                job_id: "j-1".to_owned(),
                seq: 2
            }),
            "{found:?}"
        );

        let mut history = History::default();
        history
            .start("j-1")
            .slot("j-1")
            .slot("j-1")
            .copy("j-1")
            .deliver("j-1");
        assert_eq!(
            check(&expected(1, &TWO[..1]), &history.0),
            [Violation::SlotTwice {
                job_id: "j-1".to_owned(),
                seq: 3
            }]
        );
    }

    #[test]
    fn lost_jobs_are_caught_those_without_any_row_too() {
        let mut history = History::default();
        history.start("j-1").slot("j-1").copy("j-1");
        let lost = |job: &str, state: &str| Violation::NotFinished {
            job_id: job.to_owned(),
            state: state.to_owned(),
        };
        assert_eq!(
            check(&expected(1, &TWO), &history.0),
            [lost("j-1", "syncing"), lost("j-2", "ready")]
        );
    }

    #[test]
    fn doubled_jobs_are_caught() {
        let mut history = History::default();
        history.whole("j-1").whole("j-1");
        let found = check(&expected(1, &TWO[..1]), &history.0);
        assert!(
            found
                .iter()
                .any(|violation| matches!(violation, Violation::StartedTwice { .. })),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|violation| matches!(violation, Violation::FinishedTwice { .. })),
            "{found:?}"
        );

        let mut history = History::default();
        history.whole("j-1").whole("j-9");
        let stranger = Violation::Unknown {
            job_id: "j-9".to_owned(),
            tenant: "a".to_owned(),
        };
        assert_eq!(check(&expected(1, &TWO[..1]), &history.0), [stranger]);
    }

    #[test]
    fn a_missing_row_and_an_old_epoch_are_caught() {
        let mut history = History::default();
        history.whole("j-1");
        history.0.remove(3);
        let found = check(&expected(1, &TWO[..1]), &history.0);
        assert!(
            matches!(found.as_slice(), [Violation::Torn { .. }]),
            "{found:?}"
        );

        let mut history = History::default();
        history.start("j-1").slot("j-1").copy("j-1").deliver("j-1");
        history.0[4].epoch = 3;
        let found = check(&expected(1, &TWO[..1]), &history.0);
        assert!(
            matches!(found.as_slice(), [Violation::EpochWentDown { .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn other_tenants_are_not_looked_at() {
        let mut history = History::default();
        history.whole("j-1").whole("j-9");
        for row in &mut history.0[6..] {
            row.tenant = "somebody else".to_owned();
        }
        assert_eq!(check(&expected(1, &TWO[..1]), &history.0), []);
    }
}
