//! The state of each assignment, for the next heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{Failure, JobId};
use proto::agent as wire;
use proto::agent::assignment_report::State;
use tokio::sync::watch;
use transfer::sender::CopiedFreeSpace;

use super::Key;

/// The reports on all current assignments. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    reports: Arc<watch::Sender<BTreeMap<JobId, wire::AssignmentReport>>>,
}

impl Board {
    /// Reports the state of an assignment. A report of an older epoch is ignored after one of a newer epoch.
    pub fn say(&self, key: &Key, state: State, failure: Option<&Failure>) {
        let failure = failure.map(|failure| wire::Failure {
            code: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
        });
        self.reports.send_if_modified(|reports| {
            let known = reports.get(&key.job_id);
            if known.is_some_and(|known| known.epoch > key.epoch.0) {
                return false;
            }
            let report = wire::AssignmentReport {
                job_id: key.job_id.to_string(),
                run: key.run.0,
                epoch: key.epoch.0,
                state: state.into(),
                failure,
                bytes_wire: known.map_or(0, |known| known.bytes_wire),
                copied_free_space: known
                    .filter(|known| known.epoch == key.epoch.0)
                    .map_or_else(Vec::new, |known| known.copied_free_space.clone()),
            };
            let is_news = known != Some(&report);
            reports.insert(key.job_id.clone(), report);
            is_news
        });
    }

    /// Records the number of bytes sent over the wire. That causes no extra heartbeat.
    pub fn note_bytes(&self, key: &Key, bytes_wire: u64) {
        self.reports.send_if_modified(|reports| {
            if let Some(report) = reports.get_mut(&key.job_id)
                && report.epoch == key.epoch.0
            {
                report.bytes_wire = bytes_wire;
            }
            false
        });
    }

    /// Records the disks whose free space is copied although the assignment would leave it out.
    pub fn note_copied(&self, key: &Key, copied: &[CopiedFreeSpace]) {
        let copied: Vec<wire::CopiedFreeSpace> = copied
            .iter()
            .map(|disk| wire::CopiedFreeSpace {
                disk_index: disk.index.0.into(),
                reason: disk.reason.clone(),
            })
            .collect();
        self.reports.send_if_modified(|reports| {
            let report = reports.get_mut(&key.job_id);
            let report = report.filter(|report| report.epoch == key.epoch.0);
            report.is_some_and(|report| {
                let before = std::mem::replace(&mut report.copied_free_space, copied);
                before != report.copied_free_space
            })
        });
    }

    /// Removes the report on an assignment that has ended.
    pub fn forget(&self, key: &Key) {
        self.reports.send_if_modified(|reports| {
            if reports
                .get(&key.job_id)
                .is_some_and(|report| report.epoch == key.epoch.0)
            {
                reports.remove(&key.job_id);
            }
            false
        });
    }

    /// Returns all reports.
    pub fn reports(&self) -> Vec<wire::AssignmentReport> {
        self.reports.borrow().values().cloned().collect()
    }

    /// Returns a receiver that wakes when there is a new report.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<JobId, wire::AssignmentReport>> {
        self.reports.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use domain::disk::DiskIndex;
    use domain::{Epoch, FailureCode, Run};

    use super::*;

    fn key(job_id: &JobId, epoch: i64) -> Key {
        Key {
            job_id: job_id.clone(),
            run: Run(1),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn an_older_epoch_is_not_heard_after_a_newer_one() {
        let (board, job) = (Board::default(), JobId::generate());
        let (old, new) = (key(&job, 1), key(&job, 2));
        board.say(&old, State::Sending, None);
        board.say(&new, State::Connecting, None);
        board.say(&old, State::Sent, None);
        board.forget(&old);
        let reports = board.reports();
        assert_eq!(reports.len(), 1);
        assert_eq!(
            (reports[0].epoch, reports[0].state()),
            (2, State::Connecting)
        );
        board.forget(&new);
        assert!(board.reports().is_empty());
    }

    #[test]
    fn only_states_and_failures_are_news() {
        let (board, job) = (Board::default(), JobId::generate());
        let key = key(&job, 1);
        let mut news = board.subscribe();
        board.say(&key, State::Sending, None);
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        board.say(&key, State::Sending, None);
        board.note_bytes(&key, 7);
        assert!(!news.has_changed().unwrap());
        let copied = [CopiedFreeSpace {
            index: DiskIndex::SYSTEM,
            reason: "it is in use".to_owned(),
        }];
        board.note_copied(&key, &copied);
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        board.note_copied(&key, &copied);
        board.say(&key, State::Sending, None);
        assert!(!news.has_changed().unwrap());
        let failure = Failure::new(FailureCode::ReceiverLost, "gone");
        board.say(&key, State::Retrying, Some(&failure));
        assert!(news.has_changed().unwrap());
        let report = &board.reports()[0];
        assert_eq!(report.bytes_wire, 7);
        assert_eq!(report.copied_free_space[0].reason, "it is in use");
    }
}
