//! The progress that a run shows: bytes, rate, time left, and a sentence.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use domain::InstanceId;
use domain::status_info::{CopiedFreeSpace, StatusInfo};
use proto::receiver::StatusResponse;
use service::door::Reason;
use store::run::{Observation, RunFacts};
use telemetry::Metric;

use super::disks;
use crate::receiver_client::ReceiverClient;

/// Time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(15);

/// Progress of one run under one lease.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) client: Option<ReceiverClient>,
    pub(super) instance_id: Option<InstanceId>,
    info: StatusInfo,
    bytes_total: u64,
    bytes_durable: u64,
    /// Wire bytes of the run's earlier receivers, including those under earlier leases.
    wire_before: u64,
    wire_now: u64,
    /// Bytes in the stores, as last seen.
    bytes_stored: Option<u64>,
    /// Connections that this receiver's door has ended, by reason, at the last status.
    ended: HashMap<String, u64>,
    samples: VecDeque<(Instant, u64)>,
    /// True after the first status of the receiver, which may show fewer bytes than an earlier run.
    has_looked: bool,
    first_written: bool,
}

impl Progress {
    pub(super) fn new(run: domain::Run, facts: &RunFacts) -> Self {
        Self {
            client: None,
            instance_id: None,
            info: StatusInfo {
                run: Some(run.0),
                // Set even before the receiver's first status: the next owner of the run reads it here.
                bytes_wire: (facts.bytes_wire > 0).then_some(facts.bytes_wire),
                copied_free_space: facts.copied_free_space.clone(),
                ..StatusInfo::default()
            },
            bytes_total: facts.disks.iter().map(|disk| disk.source_bytes).sum(),
            bytes_durable: 0,
            wire_before: facts.bytes_wire,
            wire_now: 0,
            bytes_stored: None,
            ended: HashMap::new(),
            samples: VecDeque::new(),
            has_looked: false,
            first_written: false,
        }
    }

    /// Sets the sentence; empty for none.
    pub(super) fn doing(&mut self, doing: &str) {
        self.info.doing = (!doing.is_empty()).then(|| doing.to_owned());
    }

    /// Records the agent's report on free space.
    pub(super) fn copied_free_space(&mut self, copied: Vec<CopiedFreeSpace>) {
        self.info.copied_free_space = copied;
    }

    /// Prepares for a new receiver, which counts its bytes from zero.
    pub(super) fn new_receiver(&mut self) {
        self.wire_before += std::mem::take(&mut self.wire_now);
        self.ended.clear();
    }

    /// Records the receiver's status.
    pub(super) fn look(&mut self, status: &StatusResponse) {
        let durable: u64 = status.disks.iter().map(|disk| disk.bytes_durable).sum();
        if self.has_looked {
            count("durable", durable.saturating_sub(self.bytes_durable));
        }
        count("wire", status.bytes_wire.saturating_sub(self.wire_now));
        self.count_ended(status);
        self.has_looked = true;
        self.bytes_durable = durable;
        self.stored(status);
        self.wire_now = status.bytes_wire;
        let now = Instant::now();
        self.samples.push_back((now, durable));
        while self.samples.len() > 2 && self.samples[1].0 + WINDOW < now {
            self.samples.pop_front();
        }
        let rate = self.rate();
        self.info.bytes_durable = Some(durable);
        self.info.bytes_total = Some(self.bytes_total);
        self.info.bytes_wire = Some(self.wire_before + self.wire_now);
        self.info.rate_bytes_per_sec = rate;
        self.info.eta_secs = rate
            .filter(|rate| *rate > 0)
            .map(|rate| self.bytes_total.saturating_sub(durable).div_ceil(rate));
        self.info.bytes_free = (status.bytes_free > 0).then_some(status.bytes_free);
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        self.info.unreadable_ranges =
            known(status.disks.iter().map(|disk| disk.unreadable_ranges).sum());
        self.info.unreadable_bytes =
            known(status.disks.iter().map(|disk| disk.unreadable_bytes).sum());
        self.info.consistency = disks::moment_of(status);
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        self.info.transport = text(&status.transport);
        self.info.transport_reason = text(&status.transport_reason);
    }

    /// Takes over what the copy and its image take in the stores.
    pub(super) fn stored(&mut self, status: &StatusResponse) {
        self.bytes_stored = Some(status.bytes_stored);
    }

    fn count_ended(&mut self, status: &StatusResponse) {
        for ended in &status.ended {
            // Whatever a receiver reports, the label is one of a small fixed set.
            let Some(reason) = Reason::named(&ended.reason) else {
                continue;
            };
            let before = self.ended.insert(ended.reason.clone(), ended.connections);
            let new = ended.connections.saturating_sub(before.unwrap_or(0));
            let labels = [("listener", "receiver"), ("reason", reason.as_str())];
            telemetry::counter(Metric::ConnectionsEnded, &labels).increment(new);
        }
    }

    /// Returns the durable bytes at the last status.
    pub(super) fn bytes_durable(&self) -> u64 {
        self.bytes_durable
    }

    /// Ends the copy: rate and time left have no meaning any more.
    pub(super) fn copied(&mut self) {
        self.info.rate_bytes_per_sec = None;
        self.info.eta_secs = None;
        self.samples.clear();
    }

    fn rate(&self) -> Option<u64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        (seconds >= 1.0).then(|| (last.1.saturating_sub(first.1) as f64 / seconds) as u64)
    }

    pub(super) fn observation(&mut self) -> Observation {
        let is_first =
            self.has_looked && !std::mem::replace(&mut self.first_written, self.has_looked);
        Observation {
            info: self.info.clone(),
            bytes_durable: self.bytes_durable,
            bytes_total: self.bytes_total,
            instance_id: self.instance_id.clone(),
            bytes_stored: self.bytes_stored,
            is_first,
        }
    }
}

fn count(kind: &'static str, bytes: u64) {
    telemetry::counter(Metric::TransferBytes, &[("kind", kind)]).increment(bytes);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::parameters::ReplicationParameters;
    use domain::{Run, SourceId, TenantId};
    use proto::receiver::Ended;

    use super::*;

    fn progress() -> Progress {
        let facts = RunFacts {
            tenant: TenantId::generate(),
            source_id: SourceId::generate(),
            public_key: Vec::new(),
            rests: false,
            parameters: ReplicationParameters::default(),
            silent_for: Duration::ZERO,
            bytes_wire: 0,
            copied_free_space: Vec::new(),
            disks: Vec::new(),
        };
        Progress::new(Run(1), &facts)
    }

    /// Returns the status of a receiver that has ended these numbers of connections, by reason.
    fn ended(reasons: &[&str], connections: u64) -> StatusResponse {
        let ended = |reason: &&str| Ended {
            reason: (*reason).to_owned(),
            connections,
        };
        StatusResponse {
            ended: reasons.iter().map(ended).collect(),
            ..StatusResponse::default()
        }
    }

    fn counted(reason: &str) -> Option<u64> {
        let labels = format!("{{listener=\"receiver\",reason=\"{reason}\"}} ");
        let series = format!("wherry_connections_ended_total{labels}");
        let shown = telemetry::render();
        let count = shown.lines().find_map(|line| line.strip_prefix(&series));
        count.map(|count| count.parse().unwrap())
    }

    #[test]
    fn each_connection_that_a_receiver_ends_is_counted_once() {
        let mut progress = progress();
        for (connections, sum) in [(3, 3), (3, 3), (10, 10)] {
            progress.look(&ended(&["crowded", "silent"], connections));
            assert_eq!(counted("crowded"), Some(sum));
        }
        progress.new_receiver();
        progress.look(&ended(&["crowded", "forged"], 2));
        assert_eq!(
            (counted("crowded"), counted("silent")),
            (Some(12), Some(10))
        );
        assert_eq!(counted("forged"), None, "a receiver makes up no label");
    }
}
