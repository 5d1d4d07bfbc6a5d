//! Puts the load on.
//!
//! With a rate, every call has a time at which it is due, and its latency counts from there: a service that answers too slowly for the
//! rate shows in the latencies, and does not simply get fewer calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use serde_json::Value;
use smc::{CallError, Client, SignatureVersion};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::mix::{Kind, Mix};

/// Ids that are known of each account.
const KNOWN_IDS: usize = 500;

/// An account to call for, and what it has.
#[derive(Debug)]
pub(super) struct Account {
    client: Client,
    sources: Vec<String>,
    jobs: Vec<String>,
    pages: u64,
}

/// A load.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) accounts: Arc<[Account]>,
    pub(super) mix: Mix,
    /// Calls a second; 0 without a limit.
    pub(super) rate: f64,
    pub(super) connections: u32,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Driven {
    pub(super) times: BTreeMap<Kind, Vec<Duration>>,
    /// Answers that should have been others, by what was wrong.
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) elapsed: Duration,
}

impl Driven {
    pub(super) fn calls(&self) -> usize {
        self.times.values().map(Vec::len).sum()
    }
}

/// Looks what the accounts have.
pub(super) async fn accounts(clients: Vec<Client>) -> anyhow::Result<Arc<[Account]>> {
    let mut accounts = Vec::new();
    for client in clients {
        let mut account = Account {
            sources: Vec::new(),
            jobs: Vec::new(),
            pages: 1,
            client,
        };
        let (mut page, mut total) = (1, 0);
        while account.jobs.len() < KNOWN_IDS && (page == 1 || account.jobs.len() < total) {
            let number = page.to_string();
            let parameters = [("PageSize", "50"), ("PageNumber", number.as_str())];
            let answer = account
                .client
                .call("DescribeReplicationJobs", &parameters)
                .await?;
            let jobs = answer["ReplicationJobs"]["ReplicationJob"].as_array();
            for job in jobs.into_iter().flatten() {
                let text = |field: &str| job[field].as_str().unwrap_or_default().to_owned();
                account.jobs.push(text("JobId"));
                account.sources.push(text("SourceId"));
            }
            let count = answer["TotalCount"]
                .as_u64()
                .context("a list without its count")?;
            total = usize::try_from(count)?;
            account.pages = count.div_ceil(50).max(1);
            page += 1;
        }
        if account.jobs.is_empty() {
            bail!("the account has no job: there is nothing to look up");
        }
        accounts.push(account);
    }
    Ok(accounts.into())
}

impl Load {
    /// Calls for that long.
    pub(super) async fn put_on(self, duration: Duration) -> Driven {
        let began = Instant::now();
        let end = began + duration;
        let next = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for number in 0..self.connections {
            let version = match number % 2 {
                0 => SignatureVersion::V1,
                _ => SignatureVersion::V3,
            };
            callers.spawn(
                self.clone()
                    .call_until(began, end, Arc::clone(&next), version),
            );
        }
        let mut driven = Driven::default();
        while let Some(ended) = callers.join_next().await {
            match ended {
                Ok(part) => {
                    for (kind, times) in part.times {
                        driven.times.entry(kind).or_default().extend(times);
                    }
                    for (fault, count) in part.faults {
                        *driven.faults.entry(fault).or_default() += count;
                    }
                }
                Err(error) => {
                    *driven
                        .faults
                        .entry(format!("a caller ended: {error}"))
                        .or_default() += 1;
                }
            }
        }
        driven.elapsed = began.elapsed();
        driven
    }

    async fn call_until(
        self,
        began: Instant,
        end: Instant,
        next: Arc<AtomicU64>,
        version: SignatureVersion,
    ) -> Driven {
        let mut driven = Driven::default();
        loop {
            let due = if self.rate > 0.0 {
                let number = next.fetch_add(1, Ordering::Relaxed);
                began + Duration::from_secs_f64(number as f64 / self.rate)
            } else {
                Instant::now()
            };
            if due >= end {
                return driven;
            }
            sleep_until(due).await;
            let account = rand::rng().random_range(0..self.accounts.len());
            let kind = self.mix.draw();
            let answered = self.accounts[account].call(kind, version).await;
            driven.times.entry(kind).or_default().push(due.elapsed());
            if let Err(fault) = answered {
                *driven
                    .faults
                    .entry(format!("{}: {fault}", kind.name()))
                    .or_default() += 1;
            }
        }
    }
}

impl Account {
    /// One call, and whether its answer is what it should be.
    async fn call(&self, kind: Kind, version: SignatureVersion) -> Result<(), String> {
        let index = rand::rng().random_range(0..self.jobs.len());
        let (job, source) = (self.jobs[index].as_str(), self.sources[index].as_str());
        // People look at the first pages; a script that walks them all gets to the others.
        let page = rand::rng().random_range(1..=self.pages.min(20)).to_string();
        let (action, parameters): (&str, Vec<(&str, &str)>) = match kind {
            Kind::PollJob => ("DescribeReplicationJobs", vec![("JobId.1", job)]),
            Kind::ListJobs => (
                "DescribeReplicationJobs",
                vec![("PageNumber", &page), ("PageSize", "50")],
            ),
            Kind::ListSources => (
                "DescribeSourceServers",
                vec![("PageNumber", &page), ("PageSize", "50")],
            ),
            Kind::ModifySource => (
                "ModifySourceServerAttribute",
                vec![
                    ("SourceId", source),
                    ("Description", "Seen by the load test"),
                ],
            ),
            Kind::StartJob => ("StartReplicationJob", vec![("JobId", job)]),
        };
        let client = self.client.clone().signing(version);
        match (kind, client.call(action, &parameters).await) {
            (Kind::PollJob, Ok(answer)) => {
                let found = &answer["ReplicationJobs"]["ReplicationJob"][0]["JobId"];
                expect(found == job, &answer)
            }
            (Kind::ListJobs, Ok(answer)) => {
                let rows = answer["ReplicationJobs"]["ReplicationJob"].as_array();
                expect(rows.is_some_and(|rows| !rows.is_empty()), &answer)
            }
            (Kind::ListSources, Ok(answer)) => {
                let rows = answer["SourceServers"]["SourceServer"].as_array();
                expect(rows.is_some_and(|rows| !rows.is_empty()), &answer)
            }
            (Kind::ModifySource, Ok(_)) => Ok(()),
            (Kind::StartJob, Err(CallError::Refused(refusal))) if refusal.http_status == 400 => {
                match refusal.code.as_str() {
                    "ReplicationJob.InvalidStatus" | "SourceServerState.Invalid" => Ok(()),
                    code => Err(code.to_owned()),
                }
            }
            (Kind::StartJob, Ok(_)) => Err("a job without an agent was started".to_owned()),
            (_, Err(CallError::Refused(refusal))) => Err(refusal.code),
            (_, Err(error)) => Err(error.to_string()),
        }
    }
}

fn expect(is_right: bool, answer: &Value) -> Result<(), String> {
    if is_right {
        return Ok(());
    }
    let mut text = answer.to_string();
    text.truncate(text.floor_char_boundary(120));
    Err(format!("another answer than asked for: {text}"))
}
