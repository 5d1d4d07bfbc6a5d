//! The host's bandwidth limit, divided among the runs that copy. Each run gets an even share; the part that a run may
//! not use because of its own limit is divided among the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use domain::JobId;
use domain::rate::{Rate, fair_shares};

/// The limit of this host, and the runs that share it. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    total: Option<Rate>,
    /// The own limit of each run that copies, in bytes a second.
    copying: Arc<Mutex<BTreeMap<JobId, Option<u64>>>>,
}

/// The part of one run, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    job_id: JobId,
    shares: Shares,
}

impl Shares {
    /// `None`: the host has no limit.
    pub(crate) fn new(total: Option<Rate>) -> Self {
        Self {
            total,
            copying: Arc::default(),
        }
    }

    /// Joins the sharing runs, for now without a limit of its own.
    pub(crate) fn join(&self, job_id: &JobId) -> Share {
        self.lock().insert(job_id.clone(), None);
        Share {
            job_id: job_id.clone(),
            shares: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Option<u64>>> {
        self.copying
            .lock()
            .expect("no holder of this lock can panic")
    }
}

impl Share {
    /// Returns the bytes a second that this run may receive now, if its own limit is `own`. Other runs that begin or
    /// end change it.
    pub(crate) fn limit(&self, own: Option<u64>) -> Option<u64> {
        let mut copying = self.shares.lock();
        copying.insert(self.job_id.clone(), own);
        let Some(total) = self.shares.total else {
            return own;
        };
        let limits: Vec<Option<u64>> = copying.values().copied().collect();
        let place = copying.keys().position(|known| *known == self.job_id)?;
        // A share of zero would mean "no limit" to the agent.
        Some(fair_shares(total.bytes_per_sec(), &limits)[place].max(1))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.lock().remove(&self.job_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_come_and_go_change_the_share_of_the_others() {
        let shares = Shares::new(Rate::from_bytes_per_sec(900));
        let first = shares.join(&JobId::generate());
        assert_eq!(first.limit(None), Some(900));
        let second = shares.join(&JobId::generate());
        assert_eq!(
            (first.limit(None), second.limit(None)),
            (Some(450), Some(450))
        );
        assert_eq!(
            (second.limit(Some(100)), first.limit(None)),
            (Some(100), Some(800))
        );
        drop(second);
        assert_eq!(
            first.limit(Some(1000)),
            Some(900),
            "the host's limit stands above a run's own"
        );
    }

    #[test]
    fn a_host_without_a_limit_leaves_each_run_its_own() {
        let shares = Shares::new(None);
        let run = shares.join(&JobId::generate());
        assert_eq!((run.limit(None), run.limit(Some(7))), (None, Some(7)));
    }
}
