//! Renewal of leases.
//!
//! One statement renews every lease that the worker holds. A lease is trusted for its time to live minus a margin,
//! counted from the *start* of its last successful renewal on the monotonic clock. So the worker stops before Postgres
//! would admit another one, no matter how long an answer took or the process was paused.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use domain::job::Intent;
use domain::{Epoch, JobId};
use store::Store;
use telemetry::Metric;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// All leases of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    worker: String,
    ttl: Duration,
    margin: Duration,
    held: Mutex<HashMap<JobId, Kept>>,
    renew_now: Notify,
}

#[derive(Debug)]
struct Kept {
    epoch: Epoch,
    trusted_until: Instant,
    intent: watch::Sender<Intent>,
    yields: CancellationToken,
    lost: CancellationToken,
}

/// One lease, for the task that drives its run. It is forgotten when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    job_id: JobId,
    epoch: Epoch,
    intent: watch::Receiver<Intent>,
    yields: CancellationToken,
    lost: CancellationToken,
    leases: Leases,
}

impl Leases {
    pub(crate) fn new(worker: String, ttl: Duration, margin: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                worker,
                ttl,
                margin,
                held: Mutex::default(),
                renew_now: Notify::new(),
            }),
        }
    }

    /// Keeps a claimed lease; the claim began at `since`.
    pub(crate) fn keep(&self, job_id: &JobId, epoch: Epoch, since: Instant) -> Held {
        let (intent, asked) = watch::channel(Intent::Run);
        let (yields, lost) = (CancellationToken::new(), CancellationToken::new());
        let kept = Kept {
            epoch,
            trusted_until: self.trusted_until(since),
            intent,
            yields: yields.clone(),
            lost: lost.clone(),
        };
        self.lock().insert(job_id.clone(), kept);
        self.show();
        Held {
            job_id: job_id.clone(),
            epoch,
            intent: asked,
            yields,
            lost,
            leases: self.clone(),
        }
    }

    /// Returns the number of leases.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Handles a message that requests something of a job: a renewal out of turn reads the job's intent at once. The
    /// message itself decides nothing, since it may be an old one that was meant for an earlier run. Returns false if
    /// the job is not this worker's.
    pub(crate) fn look_soon(&self, job_id: &JobId) -> bool {
        let is_held = self.lock().contains_key(job_id);
        if is_held {
            self.shared.renew_now.notify_one();
        }
        is_held
    }

    /// Ends when a renewal out of turn is requested.
    pub(crate) async fn renewal_asked(&self) {
        self.shared.renew_now.notified().await;
    }

    /// Renews all leases once, and gives up those that can't be trusted any longer.
    pub(crate) async fn renew(&self, store: &Store) {
        let start = Instant::now();
        let held: Vec<(JobId, Epoch)> = self
            .lock()
            .iter()
            .map(|(job_id, kept)| (job_id.clone(), kept.epoch))
            .collect();
        if held.is_empty() {
            return;
        }
        // Half of a lease's remaining time: a renewal that hangs, on a connection whose other end is gone, leaves time
        // for another.
        let patience = (self.shared.ttl - self.shared.margin) / 2;
        let answer = self
            .giving_up_meanwhile(tokio::time::timeout(
                patience,
                store.renew_leases(&self.shared.worker, &held, self.shared.ttl),
            ))
            .await;
        let outcome = match answer {
            Ok(Ok(renewed)) => {
                self.renewed(&held, &renewed, start);
                "renewed"
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "leases could not be renewed"
                );
                "failed"
            }
            Err(_) => {
                tracing::warn!(?patience, "renewing leases took too long");
                "failed"
            }
        };
        telemetry::histogram(Metric::LeaseRenewalSeconds, &[("outcome", outcome)])
            .record(start.elapsed().as_secs_f64());
        self.give_up_untrusted();
    }

    /// Waits for an answer, and meanwhile gives up the leases that can't be trusted any longer.
    async fn giving_up_meanwhile<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            let deadline = self.first_deadline();
            let out_of_trust = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = &mut answer => return answer,
                () = out_of_trust => self.give_up_untrusted(),
            }
        }
    }

    fn renewed(&self, asked: &[(JobId, Epoch)], renewed: &[store::lease::Renewed], start: Instant) {
        let mut held = self.lock();
        for lease in renewed {
            if let Some(kept) = held
                .get_mut(&lease.job_id)
                .filter(|kept| kept.epoch == lease.epoch)
            {
                kept.trusted_until = self.trusted_until(start);
                kept.intent.send_if_modified(|intent| {
                    std::mem::replace(intent, lease.intent) != lease.intent
                });
                if lease.yields {
                    kept.yields.cancel();
                }
            }
        }
        for (job_id, epoch) in asked {
            let is_renewed = renewed
                .iter()
                .any(|lease| lease.job_id == *job_id && lease.epoch == *epoch);
            if !is_renewed && let Some(kept) = held.get(job_id).filter(|kept| kept.epoch == *epoch)
            {
                lose(job_id, kept, "taken");
            }
        }
    }

    /// Gives up every lease whose trust has run out.
    pub(crate) fn give_up_untrusted(&self) {
        let now = Instant::now();
        for (job_id, kept) in self
            .lock()
            .iter()
            .filter(|(_, kept)| kept.trusted_until <= now)
        {
            lose(job_id, kept, "expired");
        }
    }

    /// Returns the earliest moment at which a lease must be given up.
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.lock()
            .values()
            .filter(|kept| !kept.lost.is_cancelled())
            .map(|kept| kept.trusted_until)
            .min()
    }

    fn trusted_until(&self, since: Instant) -> Instant {
        since + self.shared.ttl - self.shared.margin
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Kept>> {
        self.shared
            .held
            .lock()
            .expect("no holder of this lock can panic")
    }

    fn show(&self) {
        telemetry::gauge(Metric::LeasesHeld, &[]).set(self.count() as f64);
    }
}

fn lose(job_id: &JobId, kept: &Kept, reason: &'static str) {
    if !kept.lost.is_cancelled() {
        tracing::warn!(%job_id, epoch = %kept.epoch, reason, "the lease is lost");
        telemetry::counter(Metric::LeasesLost, &[("reason", reason)]).increment(1);
        kept.lost.cancel();
    }
}

impl Held {
    /// Ends when the lease is lost: from then on no work of this epoch is allowed.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Ends when the API asks the job to stop.
    pub(crate) async fn stop_asked(&self) {
        let mut intent = self.intent.clone();
        // The sender lives as long as this lease is kept.
        let _kept = intent.wait_for(|intent| *intent == Intent::Stop).await;
    }

    /// Ends when the run's place is needed for another tenant.
    pub(crate) async fn yield_asked(&self) {
        self.yields.cancelled().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.leases.lock();
        if held
            .get(&self.job_id)
            .is_some_and(|kept| kept.epoch == self.epoch)
        {
            held.remove(&self.job_id);
        }
        drop(held);
        self.leases.show();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_counts_from_the_start_of_the_attempt() {
        let leases = Leases::new(
            "w".to_owned(),
            Duration::from_secs(30),
            Duration::from_secs(5),
        );
        let slow_claim = Instant::now().checked_sub(Duration::from_secs(26)).unwrap();
        let job_id = JobId::generate();
        let held = leases.keep(&job_id, Epoch(1), slow_claim);
        leases.give_up_untrusted();
        assert!(
            held.lost.is_cancelled(),
            "25 s after the attempt began nobody may trust a lease of 30 s"
        );
    }

    #[test]
    fn what_the_answer_does_not_name_is_lost() {
        let leases = Leases::new(
            "w".to_owned(),
            Duration::from_secs(30),
            Duration::from_secs(5),
        );
        let (kept, lost) = (JobId::generate(), JobId::generate());
        let kept_lease = leases.keep(&kept, Epoch(1), Instant::now());
        let lost_lease = leases.keep(&lost, Epoch(2), Instant::now());
        let asked = [(kept.clone(), Epoch(1)), (lost, Epoch(2))];
        let answer = [store::lease::Renewed {
            job_id: kept,
            epoch: Epoch(1),
            intent: Intent::Stop,
            yields: true,
        }];
        leases.renewed(&asked, &answer, Instant::now());
        assert!(!kept_lease.lost.is_cancelled() && lost_lease.lost.is_cancelled());
        assert_eq!(
            *kept_lease.intent.borrow(),
            Intent::Stop,
            "a lost stop hint costs one renewal at most"
        );
        assert!(kept_lease.yields.is_cancelled());
        drop((kept_lease, lost_lease));
        assert_eq!(leases.count(), 0);
    }

    #[tokio::test]
    async fn a_renewal_that_hangs_keeps_no_lease_alive() {
        let leases = Leases::new(
            "w".to_owned(),
            Duration::from_millis(150),
            Duration::from_millis(50),
        );
        let held = leases.keep(&JobId::generate(), Epoch(1), Instant::now());
        tokio::select! {
            () = leases.giving_up_meanwhile(std::future::pending::<()>()) => {}
            () = held.lost() => {}
        }
        assert!(held.lost.is_cancelled());
    }

    #[tokio::test]
    async fn a_message_makes_the_worker_look_and_decides_nothing() {
        let leases = Leases::new(
            "w".to_owned(),
            Duration::from_secs(30),
            Duration::from_secs(5),
        );
        let job_id = JobId::generate();
        assert!(!leases.look_soon(&job_id), "another worker's job");
        let held = leases.keep(&job_id, Epoch(1), Instant::now());
        assert!(leases.look_soon(&job_id));
        tokio::time::timeout(Duration::from_secs(60), leases.renewal_asked())
            .await
            .expect("a renewal out of turn");
        assert_eq!(
            *held.intent.borrow(),
            Intent::Run,
            "the message may be an old one, meant for an earlier run"
        );
    }
}
