//! Syncing: the agent sends, the receiver reports. The worker watches both, shows the progress, and replaces a lost
//! receiver.

use std::time::{Duration, Instant};

use domain::job::Event;
use domain::{Failure, FailureCode};
use proto::receiver::StatusResponse;
use store::agent::ReportedState;
use store::assignment::AgentReport;
use store::parking::Parking;
use telemetry::Metric;

use super::losses::Losses;
use super::preparing::Site;
use super::silence::{Limits, Seen, Silence, Verdict};
use super::{Ended, Run, disks, internal, lost_or_ended, persist};

/// Pause between two status calls to the receiver.
const POLL: Duration = Duration::from_secs(1);

impl Run {
    pub(super) async fn sync(&mut self, site: Site) -> Result<Site, Ended> {
        let started = Instant::now();
        let site = self.receive_all(site).await?;
        self.tell_rate(started);
        self.progress.copied();
        self.observe("all disks have arrived").await?;
        self.event(Event::Synced, None).await?;
        Ok(site)
    }

    /// Waits until the receiver has given a receipt for every disk, in `site` or in the one that replaces it.
    pub(super) async fn receive_all(&mut self, mut site: Site) -> Result<Site, Ended> {
        let mut silence = Silence::new(self.facts.silent_for, Instant::now());
        let mut answered_at = Instant::now();
        let mut losses = Losses::default();
        let mut mended = 0;
        loop {
            match site.client.status(self.lease.epoch.0).await {
                Ok(status) => {
                    answered_at = Instant::now();
                    self.progress.look(&status);
                    if let Some(failure) = failure_of(&status) {
                        telemetry::counter(
                            Metric::ReceiverFailures,
                            &[("code", failure.code.as_str())],
                        )
                        .increment(1);
                        if failure.code != FailureCode::Corrupt
                            || mended >= self.context.config.corrupt_resends
                        {
                            return Err(failure.into());
                        }
                        // The receiver has forgotten the corrupt data: only that is sent again, to its replacement.
                        mended += 1;
                        tracing::warn!(job_id = %self.lease.job_id, %failure, mended, "what is wrong on the target is sent again");
                        self.observe("sending again what did not arrive whole")
                            .await?;
                        site = self.open_site(site.instance, site.image).await?;
                        answered_at = Instant::now();
                        silence.new_receiver(answered_at);
                        continue;
                    }
                    if disks::have_arrived(&self.facts.disks, &status) {
                        let wanted = self.facts.parameters.consistency;
                        disks::are_consistent(&self.facts.disks, wanted, &status)?;
                        self.share = None;
                        return Ok(site);
                    }
                    silence.look(&seen(&status), answered_at);
                    let verdict = silence.verdict(&self.limits_of_silence(), answered_at);
                    if status.agent_connected {
                        self.hear_agent(verdict).await?;
                    } else {
                        self.wait_for_agent(verdict, mended > 0).await?;
                    }
                    self.stays_within_quota()?;
                    self.keep_to_the_limit(&mut site).await?;
                }
                Err(error) => {
                    let message = lost_or_ended(error)?;
                    let is_gone = !self.is_running(&site.instance).await;
                    if is_gone || answered_at.elapsed() > self.context.config.receiver_silence() {
                        let lost = losses.another(self.progress.bytes_durable());
                        if lost > self.context.config.receiver_losses {
                            tracing::error!(job_id = %self.lease.job_id, message, lost, "the receiver was lost too often");
                            return Err(given_up(lost).with_cause(message).into());
                        }
                        tracing::warn!(job_id = %self.lease.job_id, message, lost, "the receiver is lost and is replaced");
                        self.observe("starting a new receiver: the last one was lost")
                            .await?;
                        site = self.open_site(site.instance, site.image).await?;
                        answered_at = Instant::now();
                        silence.new_receiver(answered_at);
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn limits_of_silence(&mut self) -> Limits {
        // A copy that is held back by a limit must reach half of that limit.
        let limit = self
            .limit()
            .map_or(u64::MAX, |limit| limit.saturating_mul(3600 / 2));
        let config = &self.context.config;
        Limits {
            patience: config.agent_patience(),
            park_after: config.agent_park(),
            still_after: config.agent_still(),
            least_per_hour: (config.least_mib_per_hour << 20).min(limit),
        }
    }

    /// Handles a connected agent: shows the progress, unless no data or too little arrives.
    async fn hear_agent(&mut self, verdict: Verdict) -> Result<(), Ended> {
        let source_id = self.facts.source_id.clone();
        match verdict {
            Verdict::GoOn => self.observe("copying").await,
            Verdict::Park(silent) => {
                let sentence = format!(
                    "waiting for the agent of {source_id}, which is connected and sends nothing"
                );
                Err(self.park_until_heard(silent, sentence))
            }
            Verdict::GiveUp => {
                let patience = spoken(self.context.config.agent_patience());
                let sentence = format!(
                    "The agent of {source_id} was connected and sent nothing for {patience}. Look at its log and at its disks, restart it, then \
                     start the job again; what was copied is kept."
                );
                Err(Failure::new(FailureCode::ReceiverUnreachable, sentence).into())
            }
            Verdict::TooSlow(bytes) => {
                let least = self.context.config.least_mib_per_hour;
                let sentence = format!(
                    "The agent of {source_id} dealt with {bytes} bytes of its disks in an hour; a run must come {least} MiB further. Look at the \
                     network and at the disks of the source, then start the job again; what was copied is kept."
                );
                Err(Failure::new(FailureCode::TooSlow, sentence).into())
            }
        }
    }

    fn park_until_heard(&self, silent: Duration, sentence: String) -> Ended {
        let left = self.context.config.agent_patience().saturating_sub(silent);
        let parking = Parking::Silent {
            since: silent,
            at_most: left.max(Duration::from_secs(1)),
        };
        Ended::Parked(parking, sentence)
    }

    /// Handles a missing agent: shows the reason, and parks or gives up if the wait is too long or can't end. While a
    /// copy is repaired, the agent may still repeat its report on the previous receiver.
    async fn wait_for_agent(&mut self, verdict: Verdict, is_mending: bool) -> Result<(), Ended> {
        let (job_id, epoch) = (&self.lease.job_id, self.lease.epoch);
        let report = persist(|| self.context.store.agent_report(job_id, epoch)).await;
        let report = report.map_err(|error| internal(&error))?;
        if let Some(AgentReport {
            state: ReportedState::Failed,
            failure: Some(failure),
        }) = &report
            && !(is_mending && failure.code == FailureCode::Corrupt)
        {
            return Err(failure.clone().into());
        }
        let source_id = self.facts.source_id.clone();
        let online = persist(|| self.context.store.source_is_online(&source_id)).await;
        let online = online.map_err(|error| internal(&error))?;
        let trouble = report
            .and_then(|report| report.failure)
            .map(|failure| failure.message);
        let sentence = match (online, &trouble) {
            (false, _) => format!(
                "waiting for the agent of {source_id}, which is offline: start it on the source"
            ),
            (true, Some(trouble)) => format!("waiting for the agent of {source_id}: {trouble}"),
            (true, None) => format!("waiting for the agent of {source_id} to connect"),
        };
        if let Verdict::Park(silent) = verdict {
            return Err(self.park_until_heard(silent, sentence));
        }
        if verdict == Verdict::GiveUp {
            let code = if online {
                FailureCode::ReceiverUnreachable
            } else {
                FailureCode::SourceOffline
            };
            let patience = spoken(self.context.config.agent_patience());
            let what = trouble.unwrap_or_else(|| "it was silent".to_owned());
            let sentence = format!(
                "The agent of {source_id} did not come for {patience}: {what}. Check that it runs and that it can reach {} by UDP or by \
                 TCP, then start the job again; what was copied is kept.",
                self.context.config.receiver_host()
            );
            return Err(Failure::new(code, sentence).into());
        }
        self.observe(&sentence).await
    }

    fn tell_rate(&mut self, started: Instant) {
        let total: u64 = self.facts.disks.iter().map(|disk| disk.source_bytes).sum();
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        telemetry::histogram(Metric::TransferBytesPerSecond, &[]).record(total as f64 / seconds);
    }
}

fn seen(status: &StatusResponse) -> Seen {
    Seen {
        is_connected: status.agent_connected,
        bytes_wire: status.bytes_wire,
        bytes_covered: status.bytes_covered,
        is_complete: status
            .disks
            .iter()
            .all(|disk| disk.bytes_durable >= disk.size_bytes),
    }
}

fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 120 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

fn given_up(lost: u32) -> Failure {
    let sentence = format!(
        "The receiver was lost {lost} times without progress. Tell the operator, whose history has the cause, then start the job again; what \
         was copied is kept."
    );
    Failure::new(FailureCode::ReceiverLost, sentence)
}

/// Returns the receiver's permanent failure of the transfer, if there is one.
pub(super) fn failure_of(status: &StatusResponse) -> Option<Failure> {
    let failure = status.failure.as_ref()?;
    let code = failure.code.parse().unwrap_or(FailureCode::Internal);
    Some(Failure::new(code, failure.message.clone()).with_cause(failure.cause.clone()))
}
