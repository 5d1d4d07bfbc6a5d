//! One run, from its lease to its end: Preparing, Syncing, Processing, Cleaning.
//!
//! A run keeps nothing in memory that its next owner would need. Each phase first checks the results that already
//! exist. So a run that is taken over continues with the remaining phase, and a repeated phase costs little.

mod cleaning;
mod disks;
mod losses;
mod preparing;
mod processing;
mod progress;
mod silence;
mod syncing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Bus;
use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::{Failure, FailureCode, InstanceId};
use service::Shutdown;
use store::bytes::OverQuota;
use store::instance::Instance;
use store::job::{Change, Guard, Transitioned};
use store::lease::Lease;
use store::parking::Parking;
use store::run::RunFacts;
use store::{ErrorKind, Store, StoreError};
use telemetry::Metric;

use crate::Config;
use crate::leases::Held;
use crate::provider::{InstanceState, Provider, ProviderError};
use crate::receiver_client::CallError;
use crate::shares::{Share, Shares};
use crate::stores::Stores;
use preparing::Site;

/// Pause before a failed step is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Shown for a run that gave its place to another tenant.
const YIELDED: &str = "waiting for a worker: another account's job has the place";

/// State that all runs of a worker share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) worker: String,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) shares: Shares,
    pub(crate) stores: Stores,
    pub(crate) shutdown: Shutdown,
}

/// One run.
#[derive(Debug)]
struct Run {
    context: Arc<Context>,
    lease: Lease,
    facts: RunFacts,
    headers: TraceHeaders,
    progress: progress::Progress,
    /// The run's part of the host's bandwidth, while it copies.
    share: Option<Share>,
    /// Set when the tenant has stored more than it may, as last observed.
    over_quota: Option<OverQuota>,
}

/// Reasons for which a run does not continue here.
#[derive(Debug)]
enum Ended {
    /// Failed for good, with the sentence for the tenant.
    Failed(Failure),
    /// Another worker owns the run.
    Fenced,
    /// The tenant stopped the run.
    Stopped,
    /// The run gives its place back and waits; the sentence names the cause.
    Parked(Parking, String),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Ended {
    /// Returns the end of a run whose provider failed to act on the instance.
    fn by_provider(what: &str, error: &ProviderError, instance_id: &InstanceId) -> Self {
        if let ProviderError::Fenced { .. } = error {
            return Self::Fenced;
        }
        // Paths and log lines are for the operator, the sentence is for the tenant.
        tracing::error!(%instance_id, %error, "the intermediate instance can't be {what}");
        let sentence = format!(
            "The intermediate instance {instance_id} can't be {what}. Tell the operator, whose history has the cause, then start the job again."
        );
        let failure = Failure::new(FailureCode::InstanceFailed, sentence);
        Self::Failed(failure.with_cause(error.to_string()))
    }
}

/// Drives a run to its end, or until another worker owns it.
pub(crate) async fn drive(context: Arc<Context>, lease: Lease, held: Held, headers: TraceHeaders) {
    let started = Instant::now();
    let (job_id, epoch) = (lease.job_id.clone(), lease.epoch);
    tracing::info!(%job_id, run = %lease.run, %epoch, "driving a run");
    if let Some(waited) = lease.waited {
        telemetry::histogram(Metric::JobStartSeconds, &[]).record(waited.as_secs_f64());
    }
    let outcome = match load(&context, lease, headers).await {
        Some(mut run) => {
            let driving = async {
                let ended = tokio::select! {
                    ended = run.go_through(&held) => Some(ended),
                    () = context.shutdown.draining() => None,
                };
                match ended {
                    Some(ended) => run.conclude(ended).await,
                    None => run.hand_over().await,
                }
            };
            let outcome = tokio::select! {
                biased;
                () = held.lost() => "lease_lost",
                outcome = driving => outcome,
            };
            run.leave(outcome).await;
            outcome
        }
        None => "removed",
    };
    // After a hand-over the lease is gone, or expires and is swept. Releasing it without a record would leave a run
    // that no worker finds.
    if !matches!(outcome, "lease_lost" | "handed_over")
        && let Err(error) = context.store.release_lease(&job_id, epoch).await
    {
        tracing::warn!(%job_id, %epoch, error = &error as &dyn std::error::Error, "the lease was not given back");
    }
    let elapsed = started.elapsed();
    telemetry::histogram(Metric::RunSeconds, &[("outcome", outcome)]).record(elapsed.as_secs_f64());
    tracing::info!(%job_id, %epoch, outcome, ?elapsed, "done with a run");
}

async fn load(context: &Arc<Context>, lease: Lease, headers: TraceHeaders) -> Option<Run> {
    let facts = persist(|| context.store.run_facts(&lease.job_id)).await;
    match facts {
        Ok(Some(facts)) => {
            let progress = progress::Progress::new(lease.run, &facts);
            Some(Run {
                context: Arc::clone(context),
                lease,
                facts,
                headers,
                progress,
                share: None,
                over_quota: None,
            })
        }
        Ok(None) => None,
        Err(error) => {
            tracing::error!(job_id = %lease.job_id, error = &error as &dyn std::error::Error, "a job can't be read");
            None
        }
    }
}

/// Repeats work that the database can't do at the moment; the lease limits the time.
async fn persist<T, F>(mut work: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match work().await {
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database fails, trying again"
                );
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            done => return done,
        }
    }
}

impl Run {
    async fn go_through(&mut self, held: &Held) -> Result<(), Ended> {
        let mut started = Instant::now();
        if self.is_delivered().await? {
            // The image may be hard links to the instance's disks: from here on they must not be written.
            for event in [Event::Prepared, Event::Synced, Event::Processed] {
                self.event(event, None).await?;
            }
        } else {
            // A stop is honoured until the copy is complete; from then on the run finishes first.
            let site = tokio::select! {
                copied = self.copied() => copied?,
                () = held.stop_asked() => return Err(Ended::Stopped),
                () = held.yield_asked() => return Err(Ended::Parked(Parking::Yields, YIELDED.to_owned())),
            };
            started = Instant::now();
            self.process(site).await?;
            started = phase_done("processing", started);
        }
        self.clean().await?;
        phase_done("cleaning", started);
        Ok(())
    }

    /// Returns true if an earlier owner of this run has delivered its image.
    async fn is_delivered(&self) -> Result<bool, Ended> {
        let (job_id, run) = (&self.lease.job_id, self.lease.run);
        persist(|| self.context.store.image_is_delivered(job_id, run))
            .await
            .map_err(|error| internal(&error))
    }

    async fn copied(&mut self) -> Result<Site, Ended> {
        let started = Instant::now();
        let site = self.prepare().await?;
        let started = phase_done("preparing", started);
        let site = self.sync(site).await?;
        phase_done("syncing", started);
        Ok(site)
    }

    /// Applies an event of the lease holder. Returns `Ok` also if the event was applied before.
    async fn event(&self, event: Event, failure: Option<&Failure>) -> Result<(), Ended> {
        let change = Change {
            event,
            guard: Guard::Lease(self.lease.epoch),
            actor: &self.context.worker,
            detail: "",
            failure,
            headers: &self.headers,
        };
        let done = persist(|| self.context.store.transition(&self.lease.job_id, change)).await;
        match done.map_err(|error| internal(&error))? {
            Transitioned::Moved(changed) => {
                telemetry::counter(
                    Metric::JobTransitions,
                    &[("event", event.as_str()), ("state", changed.to.as_str())],
                )
                .increment(1);
                Ok(())
            }
            Transitioned::Ignored { state, reason } => {
                telemetry::counter(
                    Metric::JobEventsIgnored,
                    &[("event", event.as_str()), ("reason", reason.as_str())],
                )
                .increment(1);
                if is_behind(state, event) {
                    Ok(())
                } else {
                    Err(Ended::Fenced)
                }
            }
            Transitioned::Fenced | Transitioned::NotFound => Err(Ended::Fenced),
            Transitioned::Recorded | Transitioned::Refused(_) => Err(Ended::Fenced),
        }
    }

    /// Records the present activity, and reads the tenant's latest tuning of the copy.
    async fn observe(&mut self, doing: &str) -> Result<(), Ended> {
        self.progress.doing(doing);
        self.write_observation().await
    }

    async fn write_observation(&mut self) -> Result<(), Ended> {
        let observation = self.progress.observation();
        let written = persist(|| {
            self.context
                .store
                .observe(&self.lease.job_id, self.lease.epoch, &observation)
        })
        .await;
        let wanted = written.map_err(|error| internal(&error))?;
        let wanted = wanted.ok_or(Ended::Fenced)?;
        self.facts.parameters = wanted.parameters;
        self.over_quota = wanted
            .bytes
            .filter(|bytes| bytes.is_exceeded_by(0))
            .map(|bytes| OverQuota { bytes, needed: 0 });
        if let Some(copied) = wanted.copied_free_space {
            self.progress.copied_free_space(copied);
        }
        Ok(())
    }

    /// Ends a run whose tenant has stored more than it may.
    fn stays_within_quota(&self) -> Result<(), Ended> {
        self.over_quota.map_or(Ok(()), |over| {
            Err(Failure::new(FailureCode::QuotaExceeded, over.to_string()).into())
        })
    }

    /// Records the outcome of the run.
    async fn conclude(&mut self, ended: Result<(), Ended>) -> &'static str {
        match ended {
            Ok(()) => "finished",
            Err(Ended::Fenced) => "lease_lost",
            Err(Ended::Parked(parking, doing)) => self.give_place_back(parking, &doing).await,
            Err(Ended::Stopped) => {
                self.halt_receiver("").await;
                match self.event(Event::Halted, None).await {
                    Ok(()) => "stopped",
                    Err(_) => "lease_lost",
                }
            }
            Err(Ended::Failed(failure)) => {
                tracing::warn!(
                    job_id = %self.lease.job_id, run = %self.lease.run, epoch = %self.lease.epoch, tenant = %self.facts.tenant,
                    %failure, "a run has failed"
                );
                self.halt_receiver("").await;
                match self.event(Event::Fail, Some(&failure)).await {
                    Ok(()) => {
                        telemetry::counter(Metric::RunFailures, &[("code", failure.code.as_str())])
                            .increment(1);
                        "failed"
                    }
                    Err(_) => "lease_lost",
                }
            }
        }
    }

    /// Flushes the received data, and records its amount and the present activity. Data that can't be flushed is sent
    /// again.
    async fn halt_receiver(&mut self, doing: &str) {
        let Some(client) = self.progress.client.clone() else {
            return;
        };
        match client.halt(self.lease.epoch.0).await {
            Ok(()) => {
                if let Ok(status) = client.status(self.lease.epoch.0).await {
                    self.progress.look(&status);
                }
                self.progress.doing(doing);
                let _fenced = self.write_observation().await;
            }
            Err(error) => {
                tracing::info!(job_id = %self.lease.job_id, %error, "the receiver was not halted")
            }
        }
    }

    /// Ends the processes of this run, and then the lease: the run's next owner finds nothing of this epoch.
    async fn give_place_back(&mut self, parking: Parking, doing: &str) -> &'static str {
        self.progress.copied();
        self.halt_receiver(doing).await;
        self.park().await;
        let (job_id, epoch) = (&self.lease.job_id, self.lease.epoch);
        let store = &self.context.store;
        let parked = persist(|| store.park_run(job_id, epoch, &self.context.worker, parking)).await;
        match parked {
            Ok(Transitioned::Moved(_)) => {
                tracing::info!(%job_id, %epoch, ?parking, "a run has given its place back");
                let _heard = self.context.bus.nudge(&self.facts.source_id).await;
                match parking {
                    Parking::Silent { .. } => "parked",
                    Parking::Yields => "yielded",
                }
            }
            Ok(_) => "lease_lost",
            Err(error) => {
                tracing::error!(%job_id, error = &error as &dyn std::error::Error, "a run was not parked");
                "lease_lost"
            }
        }
    }

    /// Gives the run to another worker, because this one drains.
    async fn hand_over(&mut self) -> &'static str {
        self.halt_receiver("").await;
        self.park().await;
        let handed = self
            .context
            .store
            .hand_over(&self.lease.job_id, self.lease.epoch, &self.context.worker)
            .await;
        if let Err(error) = handed {
            tracing::warn!(job_id = %self.lease.job_id, error = &error as &dyn std::error::Error, "a run was not handed over");
        }
        "handed_over"
    }

    /// Ends every process that would be left without a driver.
    async fn leave(&mut self, outcome: &str) {
        match outcome {
            "stopped" | "failed" => {
                let _later = self
                    .context
                    .store
                    .remove_assignment(&self.lease.job_id, self.lease.epoch)
                    .await;
                let _heard = self.context.bus.nudge(&self.facts.source_id).await;
                self.park().await;
            }
            // Nothing of this epoch may continue to receive data, even if no worker takes the run over.
            "lease_lost" => self.park().await,
            _ => {}
        }
    }

    async fn is_running(&self, instance: &Instance) -> bool {
        self.context.provider.describe(&instance.id).await == InstanceState::Running
    }

    async fn park(&self) {
        if let Some(id) = &self.progress.instance_id
            && let Err(error) = self.context.provider.park(id, self.lease.epoch).await
        {
            if let ProviderError::Fenced { .. } = error {
                tracing::debug!(instance_id = %id, "the instance is the next owner's");
            } else {
                tracing::warn!(instance_id = %id, %error, "a receiver was not ended");
            }
        }
    }
}

/// Records the duration of a phase; the next one begins now.
fn phase_done(phase: &'static str, started: Instant) -> Instant {
    telemetry::histogram(Metric::RunPhaseSeconds, &[("phase", phase)])
        .record(started.elapsed().as_secs_f64());
    Instant::now()
}

/// Returns true if the job is in the state after the event, or a later one: the event was applied before.
fn is_behind(state: State, event: Event) -> bool {
    event
        .moves()
        .any(|(_, to)| state >= to && state.is_running() || state == to)
}

fn internal(error: &StoreError) -> Ended {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "a run ends by an error of the database"
    );
    let failure = Failure::new(
        FailureCode::Internal,
        "An internal error has ended the run. Start the job again.",
    );
    Ended::Failed(failure.with_cause(whole(error)))
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// Classifies a failed call to the receiver: `Ok` means that the receiver may be gone, an error ends the run here.
fn lost_or_ended(error: CallError) -> Result<String, Ended> {
    match error {
        CallError::Lost(message) => Ok(message),
        CallError::Fenced => Err(Ended::Fenced),
        CallError::Refused(failure) => Err(Ended::Failed(failure)),
    }
}
