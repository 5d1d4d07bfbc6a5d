//! The load itself: each source does one job after the other, all sources at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use smc::model::{
    Answered, CreateReplicationJob, DeleteImage, DescribeImages, DescribeReplicationJobs,
    DescribeSourceServers, JobStatus, Operation, ReplicationJob, SourceState, StartReplicationJob,
};
use tokio::process::Child;

use super::disk;
use crate::deployment::Deployment;
use crate::process;

/// The smallest disk that the API takes. Files of that size are sparse and cost nothing.
const TARGET_GIB: u32 = 20;

const ENROL_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// A call that fails for the moment is sent again this often, each time after a longer pause.
const RETRIES: u32 = 5;

/// One source: an agent process over one disk in a file.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) id: String,
    pub(super) name: String,
    disk: PathBuf,
    client: smc::Client,
    image_store: Option<PathBuf>,
}

/// Progress of the sources, as their client saw it.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Job and its source, for every job that the API accepted.
    pub(super) accepted: Vec<(String, String)>,
    /// Time that each call took.
    pub(super) calls: Vec<Duration>,
    /// Calls that had to be sent again, by why.
    pub(super) retries: BTreeMap<String, usize>,
    /// Jobs whose image was compared with its source.
    pub(super) compared: usize,
    /// Sentences about what is wrong.
    pub(super) faults: Vec<String>,
}

/// The log, shared by all sources.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes the disk and starts the agent over it.
pub(super) fn start_agent(
    deployment: &Deployment,
    name: &str,
    code: &str,
    mib: u64,
    seed: u64,
    folder: &Path,
) -> anyhow::Result<(PathBuf, Child)> {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder)?;
    let disk = folder.join("disk.raw");
    disk::make(&disk, mib, seed)?;
    let code_file = folder.join("activation-code");
    std::fs::write(&code_file, code)?;
    let mut command = process::wherry()?;
    command.args([
        "agent",
        "--server",
        &deployment.agent_endpoint,
        "--name",
        name,
    ]);
    command
        .arg("--activation-code-file")
        .arg(&code_file)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg("--disk")
        .arg(&disk);
    let agent = process::start(command, &folder.join("agent.log"))?;
    Ok((disk, agent))
}

/// Waits until the agent has registered and its source can be migrated.
pub(super) async fn enrolled(
    client: smc::Client,
    name: String,
    disk: PathBuf,
    image_store: Option<PathBuf>,
) -> anyhow::Result<Source> {
    let began = Instant::now();
    loop {
        let request = DescribeSourceServers {
            name: Some(name.clone()),
            state: Some(SourceState::Available),
            ..DescribeSourceServers::default()
        };
        let listed = client.call(&request).await?;
        if let Some(source) = listed.source_servers.first() {
            return Ok(Source {
                id: source.source_id.clone(),
                name,
                disk,
                client,
                image_store,
            });
        }
        if began.elapsed() > ENROL_TIMEOUT {
            bail!(
                "the agent {name} did not register within {} s",
                ENROL_TIMEOUT.as_secs()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Source {
    /// Runs this number of jobs, one after the other. A fault ends this source's part: an unfinished job would refuse
    /// the next.
    pub(super) async fn work(self, jobs: usize, log: SharedLog) {
        for number in 0..jobs {
            if let Err(error) = self.job(number, &log).await {
                log.write(|log| log.faults.push(format!("source {}: {error:#}", self.name)));
                return;
            }
        }
    }

    async fn call<O: Operation<Answer: DeserializeOwned>>(
        &self,
        log: &SharedLog,
        request: &O,
    ) -> Result<Answered<O::Answer>, smc::CallError> {
        for retry in 1.. {
            let began = Instant::now();
            let answer = self.client.call(request).await;
            log.write(|log| log.calls.push(began.elapsed()));
            match answer {
                Err(error) if error.is_retryable() && retry <= RETRIES => {
                    let why = error
                        .code()
                        .map_or_else(|| error.to_string(), str::to_owned);
                    log.write(|log| {
                        *log.retries
                            .entry(format!("{}: {why}", O::ACTION))
                            .or_default() += 1
                    });
                }
                answer => return answer,
            }
            tokio::time::sleep(POLL * 2_u32.pow(retry)).await;
        }
        unreachable!("the last try returns")
    }

    async fn job(&self, number: usize, log: &SharedLog) -> anyhow::Result<()> {
        let id = self.create(number, log).await?;
        let job_id = id.clone();
        self.call(log, &StartReplicationJob { job_id })
            .await
            .with_context(|| format!("start {id}"))?;
        let request = DescribeReplicationJobs {
            job_id: Some(vec![id.clone()]),
            ..DescribeReplicationJobs::default()
        };
        let job = loop {
            tokio::time::sleep(POLL).await;
            let listed = self.call(log, &request).await?.answer;
            let Some(job) = listed.replication_jobs.into_iter().next() else {
                bail!("job {id} is gone");
            };
            match job.status.as_str() {
                "Finished" => break job,
                "Running" => {}
                status => bail!(
                    "job {id} is {status}: {} {}",
                    job.error_code,
                    job.status_info.unwrap_or_default()
                ),
            }
        };
        self.check_image(&job, log).await
    }

    /// Two calls at once request a job of this source. One must win: a source has one unfinished job at most.
    async fn create(&self, number: usize, log: &SharedLog) -> anyhow::Result<String> {
        let request = |call: &str| {
            let name = format!("{}-{number}-{call}", self.name);
            CreateReplicationJob {
                image_name: Some(name.clone()),
                ..self.job_named(name)
            }
        };
        let (one, other) = (request("a"), request("b"));
        let answers = tokio::join!(self.call(log, &one), self.call(log, &other));
        let mut ids = Vec::new();
        for answer in [answers.0, answers.1] {
            match answer {
                Ok(made) => ids.push(made.answer.job_id),
                Err(error) if error.code() == Some("SourceServerState.Invalid") => {}
                Err(error) => return Err(error.into()),
            }
        }
        log.write(|log| {
            log.accepted
                .extend(ids.iter().map(|id| (id.clone(), self.id.clone())))
        });
        ensure!(
            ids.len() == 1,
            "of two calls at once for one source, {} made a job: {}",
            ids.len(),
            ids.join(", ")
        );
        Ok(ids.remove(0))
    }

    /// Requests one job more than the tenant may have, and compares the jobs that the API lists with those that it
    /// accepted.
    ///
    /// # Errors
    /// The job was made, or was refused for another reason, or jobs are missing, or jobs exist that no source
    /// requested.
    pub(super) async fn one_too_many(&self, limit: usize, log: &SharedLog) -> anyhow::Result<()> {
        let request = self.job_named(format!("{}-too-many", self.name));
        match self.call(log, &request).await {
            Ok(made) => bail!(
                "job {} is one more than the {limit} that its tenant may have",
                made.job_id
            ),
            Err(error) if error.code() == Some("QuotaExceeded.ReplicationJob") => {}
            Err(error) => {
                return Err(error).context("a job above the limit was not refused as such");
            }
        }
        for (which, status) in [("", None), ("finished ", Some(JobStatus::Finished))] {
            let request = DescribeReplicationJobs {
                status,
                page_size: Some(1),
                ..DescribeReplicationJobs::default()
            };
            let count = self.call(log, &request).await?.total_count;
            ensure!(
                usize::try_from(count) == Ok(limit),
                "the API lists {count} {which}jobs, {limit} were made"
            );
        }
        Ok(())
    }

    /// The request that makes a job of this source. A call that is sent again must not make a second job.
    fn job_named(&self, name: String) -> CreateReplicationJob {
        CreateReplicationJob {
            source_id: self.id.clone(),
            system_disk_size: Some(TARGET_GIB),
            client_token: Some(name.clone()),
            name: Some(name),
            ..CreateReplicationJob::default()
        }
    }

    async fn check_image(&self, job: &ReplicationJob, log: &SharedLog) -> anyhow::Result<()> {
        let id = &job.job_id;
        let request = DescribeImages {
            job_id: Some(vec![id.clone()]),
            ..DescribeImages::default()
        };
        let images = self.call(log, &request).await?.answer.images;
        ensure!(images.len() == 1, "job {id} has {} images", images.len());
        let (image, image_id) = (&images[0], &images[0].image_id);
        ensure!(
            job.image_id.as_ref() == Some(image_id),
            "job {id} names image {:?}, it delivered {image_id}",
            job.image_id
        );
        let location = self.image_store.as_ref().map(|store| store.join(image_id));
        if let Some(location) = location {
            let description: Value = serde_json::from_str(&image.description)
                .with_context(|| format!("image {image_id} has no description"))?;
            let raw = location.join(description["disks"][0]["raw"].as_str().unwrap_or_default());
            let source = self.disk.clone();
            let compared = tokio::task::spawn_blocking(move || {
                disk::compare(&source, &raw, u64::from(TARGET_GIB) << 30)
            });
            compared
                .await?
                .with_context(|| format!("the disk of image {image_id} is wrong"))?;
            log.write(|log| log.compared += 1);
        }
        let image_id = image_id.clone();
        self.call(log, &DeleteImage { image_id }).await?;
        Ok(())
    }
}
