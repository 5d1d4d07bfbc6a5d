//! Applies the load.
//!
//! With a rate, every call has a time at which it is due, and its latency counts from that time. A service that is too
//! slow for the rate therefore shows in the latencies, and does not simply get fewer calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use rand::RngExt as _;
use serde::Serialize;
use smc::model::{
    self, Answered, CreateReplicationJob, DeleteReplicationJob, DescribeReplicationJobs,
    DescribeSourceServers, JobStatus, ModifySourceServerAttribute, SourceState,
    StartReplicationJob, StopReplicationJob,
};
use smc::{CallError, Client, SignatureVersion};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::mix::{Kind, Mix};

/// Ids that are known of each account, and of each kind that is changed.
const KNOWN_IDS: usize = 500;

/// Rows on a page.
const PAGE: u32 = 50;

/// An account to call for, and what it has.
#[derive(Debug)]
pub(super) struct Account {
    client: Client,
    sources: Vec<String>,
    jobs: Vec<String>,
    pages: u64,
    movable: Movable,
}

/// Sources and jobs that can be changed, each only once: sources without an unfinished job, and jobs by their status.
/// Empty for an account that is not the test's own.
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

/// The calls that were made, and their results.
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

/// Lists the sources and jobs of the accounts. Those that may be changed are listed only if the accounts are the test's
/// own.
pub(super) async fn accounts(
    clients: Vec<Client>,
    are_own: bool,
) -> anyhow::Result<Arc<[Account]>> {
    let mut accounts = Vec::new();
    for client in clients {
        // Jobs that are looked up again and again are not those that are removed meanwhile.
        let status = are_own.then_some(JobStatus::Finished);
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
            pages: total.div_ceil(u64::from(PAGE)).max(1),
            movable,
        });
    }
    Ok(accounts.into())
}

/// The pages that have the ids which are to be known.
fn pages() -> impl Iterator<Item = u32> {
    (1..).take(KNOWN_IDS / PAGE as usize)
}

async fn movable(client: &Client) -> anyhow::Result<Movable> {
    let pool = async |status| {
        let (jobs, _) = known(client, Some(status)).await?;
        let ids = jobs.into_iter().map(|(job, _)| job).collect();
        anyhow::Ok(Pool(Mutex::new(ids)))
    };
    let mut free = Vec::new();
    for page in pages() {
        let request = DescribeSourceServers {
            state: Some(SourceState::Available),
            page_size: Some(PAGE),
            page_number: Some(page),
            ..DescribeSourceServers::default()
        };
        let answer = client.call(&request).await?.answer;
        let sources = answer.source_servers.into_iter();
        free.extend(sources.map(|source| source.source_id));
    }
    Ok(Movable {
        free: Pool(Mutex::new(free)),
        ready: pool(JobStatus::Ready).await?,
        waiting: pool(JobStatus::Waiting).await?,
        stopped: pool(JobStatus::Stopped).await?,
    })
}

/// Jobs with their sources, [`KNOWN_IDS`] at most, and how many there are.
async fn known(
    client: &Client,
    status: Option<JobStatus>,
) -> anyhow::Result<(Vec<(String, String)>, u64)> {
    let (mut known, mut total) = (Vec::new(), 0);
    for page in pages() {
        let request = DescribeReplicationJobs {
            status,
            page_size: Some(PAGE),
            page_number: Some(page),
            ..DescribeReplicationJobs::default()
        };
        let answer = client.call(&request).await?.answer;
        total = u64::try_from(answer.total_count)?;
        let jobs = answer.replication_jobs.into_iter();
        known.extend(jobs.map(|job| (job.job_id, job.source_id)));
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
    /// Takes the subject of a call. If nothing is left for this kind of change, the call looks up a job instead.
    fn take(&self, kind: Kind) -> (Kind, String) {
        let index = rand::rng().random_range(0..self.jobs.len());
        let subject = match kind {
            // People read the first pages; a script that walks them all gets to the others.
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
        let client = self.client.clone().signing(version);
        match kind {
            Kind::PollJob => {
                let request = DescribeReplicationJobs {
                    job_id: Some(vec![subject.to_owned()]),
                    ..DescribeReplicationJobs::default()
                };
                let answer = done(client.call(&request).await)?;
                let found = answer.replication_jobs.first();
                expect(found.is_some_and(|job| job.job_id == subject), &answer)
            }
            Kind::ListJobs => {
                let request = DescribeReplicationJobs {
                    page_number: subject.parse().ok(),
                    page_size: Some(PAGE),
                    ..DescribeReplicationJobs::default()
                };
                let answer = done(client.call(&request).await)?;
                expect(!answer.replication_jobs.is_empty(), &answer)
            }
            Kind::ListSources => {
                let request = DescribeSourceServers {
                    page_number: subject.parse().ok(),
                    page_size: Some(PAGE),
                    ..DescribeSourceServers::default()
                };
                let answer = done(client.call(&request).await)?;
                expect(!answer.source_servers.is_empty(), &answer)
            }
            Kind::ModifySource => {
                let request = ModifySourceServerAttribute {
                    source_id: subject.to_owned(),
                    description: Some("Seen by the load test".to_owned()),
                    ..ModifySourceServerAttribute::default()
                };
                done(client.call(&request).await).map(drop)
            }
            Kind::CreateJob => {
                let request = CreateReplicationJob {
                    source_id: subject.to_owned(),
                    system_disk_size: Some(40),
                    ..CreateReplicationJob::default()
                };
                let made = done(client.call(&request).await)?;
                expect(!made.job_id.is_empty(), &made)?;
                self.movable.ready.put(&made.job_id);
                Ok(())
            }
            Kind::StartJob => {
                let job_id = subject.to_owned();
                done(client.call(&StartReplicationJob { job_id }).await).map(drop)
            }
            Kind::StopJob => {
                let job_id = subject.to_owned();
                done(client.call(&StopReplicationJob { job_id }).await)?;
                self.movable.stopped.put(subject);
                Ok(())
            }
            Kind::DeleteJob => {
                let job_id = subject.to_owned();
                done(client.call(&DeleteReplicationJob { job_id }).await).map(drop)
            }
        }
    }
}

/// The answer of a call that was done, or what was wrong.
fn done<A>(answered: Result<Answered<A>, CallError>) -> Result<Answered<A>, String> {
    answered.map_err(|error| match error {
        CallError::Refused(refusal) => refusal.code,
        error => error.to_string(),
    })
}

fn expect(is_right: bool, answer: &impl Serialize) -> Result<(), String> {
    if is_right {
        return Ok(());
    }
    let mut text = model::to_json(answer).to_string();
    text.truncate(text.floor_char_boundary(120));
    Err(format!("another answer than asked for: {text}"))
}
