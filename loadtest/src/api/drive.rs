//! Puts the load on.
//!
//! With a rate, every call has a time at which it is due, and its latency counts from there: a service that answers too slowly for the
//! rate shows in the latencies, and does not simply get fewer calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use serde_json::Value;
use smc::{CallError, Client, SignatureVersion};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::mix::{Kind, Mix};

/// Ids that are known of each account, and of each kind that is changed.
const KNOWN_IDS: usize = 500;

/// Rows on a page.
const PAGE: usize = 50;

/// An account to call for, and what it has.
#[derive(Debug)]
pub(super) struct Account {
    client: Client,
    sources: Vec<String>,
    jobs: Vec<String>,
    pages: u64,
    movable: Movable,
}

/// What can be changed, each but once: sources without an unfinished job, and jobs by their status. Nothing of an account that is not the
/// test's own.
#[derive(Debug, Default)]
struct Movable {
    free: Pool,
    ready: Pool,
    waiting: Pool,
    stopped: Pool,
}

#[derive(Debug, Default)]
struct Pool(Mutex<Vec<String>>);

impl Pool {
    fn put(&self, id: &str) {
        self.lock().push(id.to_owned());
    }

    fn take(&self) -> Option<String> {
        self.lock().pop()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Looks what the accounts have. What may be changed is looked for only where the accounts are the test's own.
pub(super) async fn accounts(
    clients: Vec<Client>,
    are_own: bool,
) -> anyhow::Result<Arc<[Account]>> {
    let mut accounts = Vec::new();
    for client in clients {
        // What is looked up again and again is not what is removed meanwhile.
        let status = are_own.then_some("Finished");
        let (jobs, total) = known(&client, status).await?;
        if jobs.is_empty() {
            bail!("the account has no job: there is nothing to look up");
        }
        let (jobs, sources) = jobs.into_iter().unzip();
        let movable = match are_own {
            true => movable(&client).await?,
            false => Movable::default(),
        };
        accounts.push(Account {
            client,
            sources,
            jobs,
            pages: total.div_ceil(PAGE as u64).max(1),
            movable,
        });
    }
    Ok(accounts.into())
}

async fn movable(client: &Client) -> anyhow::Result<Movable> {
    let pool = async |status| {
        let (jobs, _) = known(client, Some(status)).await?;
        let ids = jobs.into_iter().map(|(job, _)| job).collect();
        anyhow::Ok(Pool(Mutex::new(ids)))
    };
    let mut free = Vec::new();
    for page in 1..=KNOWN_IDS / PAGE {
        let page = page.to_string();
        let asked = [
            ("State", "Available"),
            ("PageSize", "50"),
            ("PageNumber", page.as_str()),
        ];
        let answer = client.call("DescribeSourceServers", &asked).await?;
        let sources = answer["SourceServers"]["SourceServer"].as_array();
        for source in sources.into_iter().flatten() {
            free.push(source["SourceId"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(Movable {
        free: Pool(Mutex::new(free)),
        ready: pool("Ready").await?,
        waiting: pool("Waiting").await?,
        stopped: pool("Stopped").await?,
    })
}

/// Jobs with their sources, [`KNOWN_IDS`] at most, and how many there are.
async fn known(
    client: &Client,
    status: Option<&str>,
) -> anyhow::Result<(Vec<(String, String)>, u64)> {
    let (mut known, mut total) = (Vec::new(), 0);
    for page in 1..=KNOWN_IDS / PAGE {
        let page = page.to_string();
        let mut asked = vec![("PageSize", "50"), ("PageNumber", page.as_str())];
        asked.extend(status.map(|status| ("Status", status)));
        let answer = client.call("DescribeReplicationJobs", &asked).await?;
        let jobs = answer["ReplicationJobs"]["ReplicationJob"].as_array();
        for job in jobs.into_iter().flatten() {
            let text = |field: &str| job[field].as_str().unwrap_or_default().to_owned();
            known.push((text("JobId"), text("SourceId")));
        }
        let count = answer["TotalCount"].as_u64();
        total = count.context("a list without its count")?;
        if known.len() as u64 >= total {
            break;
        }
    }
    Ok((known, total))
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
            let account = &self.accounts[account];
            let (kind, subject) = account.take(self.mix.draw());
            let answered = account.call(kind, &subject, version).await;
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
    /// What a call is about. When nothing is left that could be changed so, a job is looked up instead.
    fn take(&self, kind: Kind) -> (Kind, String) {
        let index = rand::rng().random_range(0..self.jobs.len());
        let subject = match kind {
            // People look at the first pages; a script that walks them all gets to the others.
            Kind::ListJobs | Kind::ListSources => {
                Some(rand::rng().random_range(1..=self.pages.min(20)).to_string())
            }
            Kind::PollJob => None,
            Kind::ModifySource => Some(self.sources[index].clone()),
            Kind::CreateJob => self.movable.free.take(),
            Kind::StartJob => self.movable.ready.take(),
            Kind::StopJob => self.movable.waiting.take(),
            Kind::DeleteJob => self.movable.stopped.take(),
        };
        match subject {
            Some(subject) => (kind, subject),
            None => (Kind::PollJob, self.jobs[index].clone()),
        }
    }

    /// One call, and whether its answer is what it should be.
    async fn call(
        &self,
        kind: Kind,
        subject: &str,
        version: SignatureVersion,
    ) -> Result<(), String> {
        let (action, parameters): (&str, Vec<(&str, &str)>) = match kind {
            Kind::PollJob => ("DescribeReplicationJobs", vec![("JobId.1", subject)]),
            Kind::ListJobs => (
                "DescribeReplicationJobs",
                vec![("PageNumber", subject), ("PageSize", "50")],
            ),
            Kind::ListSources => (
                "DescribeSourceServers",
                vec![("PageNumber", subject), ("PageSize", "50")],
            ),
            Kind::ModifySource => (
                "ModifySourceServerAttribute",
                vec![
                    ("SourceId", subject),
                    ("Description", "Seen by the load test"),
                ],
            ),
            Kind::CreateJob => (
                "CreateReplicationJob",
                vec![("SourceId", subject), ("SystemDiskSize", "40")],
            ),
            Kind::StartJob => ("StartReplicationJob", vec![("JobId", subject)]),
            Kind::StopJob => ("StopReplicationJob", vec![("JobId", subject)]),
            Kind::DeleteJob => ("DeleteReplicationJob", vec![("JobId", subject)]),
        };
        let client = self.client.clone().signing(version);
        let answer = match client.call(action, &parameters).await {
            Ok(answer) => answer,
            Err(CallError::Refused(refusal)) => return Err(refusal.code),
            Err(error) => return Err(error.to_string()),
        };
        match kind {
            Kind::PollJob => {
                let found = &answer["ReplicationJobs"]["ReplicationJob"][0]["JobId"];
                expect(found == subject, &answer)
            }
            Kind::ListJobs => expect(
                has_rows(&answer["ReplicationJobs"]["ReplicationJob"]),
                &answer,
            ),
            Kind::ListSources => {
                expect(has_rows(&answer["SourceServers"]["SourceServer"]), &answer)
            }
            Kind::CreateJob => {
                let made = answer["JobId"].as_str();
                made.into_iter().for_each(|job| self.movable.ready.put(job));
                expect(made.is_some(), &answer)
            }
            Kind::StopJob => {
                self.movable.stopped.put(subject);
                Ok(())
            }
            Kind::ModifySource | Kind::StartJob | Kind::DeleteJob => Ok(()),
        }
    }
}

fn has_rows(list: &Value) -> bool {
    list.as_array().is_some_and(|rows| !rows.is_empty())
}

fn expect(is_right: bool, answer: &Value) -> Result<(), String> {
    if is_right {
        return Ok(());
    }
    let mut text = answer.to_string();
    text.truncate(text.floor_char_boundary(120));
    Err(format!("another answer than asked for: {text}"))
}
