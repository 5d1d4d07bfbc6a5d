//! Tenants of a cluster, their sources with real agents, and their jobs, all through the signed API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use domain::status_info::StatusInfo;
use serde::de::DeserializeOwned;
use smc::model::{
    CreateAccessToken, CreateReplicationJob, DataDiskSize, DescribeReplicationJobs,
    DescribeSourceServers, Operation, ReplicationJob, SourceServer, SourceState,
    StartReplicationJob,
};
use sqlx::Connection as _;

use super::{Cluster, Process, REGION, Shell, disk};
use crate::wait;

/// Longest time from an agent's start until its source is Available.
const ENROL_TIMEOUT: Duration = Duration::from_secs(30);

const GIB: u64 = 1 << 30;

/// The smallest disk that the API takes, in GiB.
const SMALLEST_GIB: u32 = 20;

/// An account of the cluster, with a client that signs for it.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The account's id.
    pub id: domain::TenantId,
    /// Signs with the account's key.
    pub client: smc::Client,
    /// The account's key.
    pub key: store::key::AccessKey,
    activation_code: String,
}

/// A source of the tenant: an agent process over disks in files.
#[derive(Debug)]
pub struct Source {
    /// The source's id.
    pub id: String,
    /// The source's disks, the system disk first.
    pub disks: Vec<PathBuf>,
    /// The agent.
    pub agent: Process,
    tenant: domain::TenantId,
    client: smc::Client,
    key: store::key::AccessKey,
}

/// A job of the tenant.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job's id.
    pub id: String,
    /// The tenant that owns the job.
    pub tenant: domain::TenantId,
    client: smc::Client,
    key: store::key::AccessKey,
    disks: Vec<PathBuf>,
    images: PathBuf,
}

/// Settings of a new job.
#[derive(Debug, Clone, Default)]
pub struct JobOptions {
    /// `ReplicationParameters`, as JSON text.
    pub parameters: String,
    /// `Frequency` and `MaxNumberOfImageToKeep` of a job that delivers again and again.
    pub increments: Option<(i32, i32)>,
    /// `ScheduledStartTime`.
    pub scheduled_start: Option<domain::Timestamp>,
}

impl Tenant {
    pub(super) async fn create(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let created = cluster
            .store
            .create_tenant(name, &store::tenant::Quotas::default())
            .await?;
        let store::tenant::CreateTenant::Created(tenant) = created else {
            bail!("the cluster has a tenant {name}")
        };
        let key = cluster.store.create_access_key(&tenant.id).await?;
        let credentials = smc::Credentials::new(key.id.clone(), key.secret.clone());
        let client = smc::Client::new(&cluster.endpoint(), credentials, REGION)?;
        let request = CreateAccessToken {
            name: Some("testkit".to_owned()),
            count: Some(1000),
            ..CreateAccessToken::default()
        };
        let activation_code = client.call(&request).await?.answer.access_token_code;
        Ok(Self {
            id: tenant.id,
            client,
            key,
            activation_code,
        })
    }

    /// The command line with the account's key.
    pub fn shell(&self, cluster: &Cluster) -> anyhow::Result<Shell> {
        Shell::new(cluster, &self.key)
    }

    /// Starts an agent over new disks of these sizes in bytes, and waits until its source is Available.
    pub async fn source(
        &self,
        cluster: &Cluster,
        name: &str,
        sizes: &[u64],
    ) -> anyhow::Result<Source> {
        let directory = cluster.path(name);
        std::fs::create_dir_all(&directory)?;
        let mut disks = Vec::new();
        for (index, &size) in sizes.iter().enumerate() {
            let path = directory.join(format!("disk-{index}"));
            let seed = name.bytes().fold(index as u64, |seed, byte| {
                seed.wrapping_mul(31) + u64::from(byte)
            });
            disk::make(&path, size, seed)?;
            disks.push(path);
        }
        self.source_of(cluster, name, disks).await
    }

    /// The same over disks that are there.
    pub async fn source_of(
        &self,
        cluster: &Cluster,
        name: &str,
        disks: Vec<PathBuf>,
    ) -> anyhow::Result<Source> {
        let directory = cluster.path(name);
        std::fs::create_dir_all(&directory)?;
        let state = directory.join("state").display().to_string();
        let code = directory.join("activation-code");
        std::fs::write(&code, &self.activation_code)?;
        let mut arguments: Vec<String> = [
            "agent",
            "--server",
            &cluster.agents_endpoint(),
            "--activation-code-file",
            &code.display().to_string(),
            "--state-dir",
            &state,
            "--name",
            name,
        ]
        .map(str::to_owned)
        .to_vec();
        for path in &disks {
            arguments.extend(["--disk".to_owned(), path.display().to_string()]);
        }
        let agent = Process::start(
            cluster.binary(),
            &directory,
            "agent",
            &arguments,
            &cluster.config.environment,
        )?;
        let client = self.client.clone();
        let request = DescribeSourceServers {
            name: Some(name.to_owned()),
            state: Some(SourceState::Available),
            ..DescribeSourceServers::default()
        };
        let found = wait::some(
            ENROL_TIMEOUT,
            &format!("the source {name} is Available"),
            async || {
                match client.call(&request).await {
                    // On a busy machine a connection may break before its answer has come.
                    Err(error) if error.is_retryable() => Ok(None),
                    answered => {
                        let listed = answered?.answer.source_servers.into_iter();
                        Ok(listed.map(|source| source.source_id).next())
                    }
                }
            },
        )
        .await;
        let id = found.with_context(|| format!("the agent printed:\n{}", agent.log()))?;
        Ok(Source {
            id,
            disks,
            agent,
            tenant: self.id.clone(),
            client,
            key: self.key.clone(),
        })
    }
}

impl Source {
    /// The source as the API shows it.
    pub async fn describe(&self) -> anyhow::Result<SourceServer> {
        let request = DescribeSourceServers {
            source_id: Some(vec![self.id.clone()]),
            ..DescribeSourceServers::default()
        };
        let listed = self.client.call(&request).await?.answer;
        let source = listed.source_servers.into_iter().next();
        source.with_context(|| format!("source {} is not there", self.id))
    }

    /// Moves the agent's last heartbeat so far back that the source counts as offline.
    pub async fn let_silence_be_long(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut connection = sqlx::PgConnection::connect(&cluster.postgres.url()).await?;
        sqlx::query("update source set last_seen_at = now() - interval '1 hour' where id = $1")
            .bind(&self.id)
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Creates a job for all disks of the source; targets are 20 GiB or what the disk needs.
    pub async fn create_job(
        &self,
        cluster: &Cluster,
        name: &str,
        options: &JobOptions,
    ) -> anyhow::Result<Job> {
        let mut sizes = self.disks.iter().map(|path| target_gib(path));
        let system = sizes.next().transpose()?;
        let data = (1..).zip(sizes).map(|(index, gib)| {
            Ok(DataDiskSize {
                index: Some(index),
                size: Some(gib?),
            })
        });
        let (hours, keep) = options.increments.unzip();
        let request = CreateReplicationJob {
            source_id: self.id.clone(),
            name: Some(name.to_owned()),
            image_name: Some(format!("{name}-image")),
            replication_parameters: Some(options.parameters.clone()),
            run_once: options.increments.map(|_| false),
            frequency: hours,
            max_number_of_image_to_keep: keep,
            scheduled_start_time: options.scheduled_start.map(|moment| moment.to_string()),
            system_disk_size: system,
            data_disk: Some(data.collect::<anyhow::Result<_>>()?),
            ..CreateReplicationJob::default()
        };
        let made = self.client.call(&request).await?;
        Ok(Job {
            id: made.answer.job_id,
            tenant: self.tenant.clone(),
            client: self.client.clone(),
            key: self.key.clone(),
            disks: self.disks.clone(),
            images: cluster.images(),
        })
    }
}

impl Job {
    /// The command line with the key of its account.
    pub fn shell(&self, cluster: &Cluster) -> anyhow::Result<Shell> {
        Shell::new(cluster, &self.key)
    }

    /// Calls an operation with what `request` makes of the job's id.
    pub async fn call<O: Operation<Answer: DeserializeOwned>>(
        &self,
        request: impl FnOnce(String) -> O,
    ) -> Result<O::Answer, smc::CallError> {
        let answered = self.client.call(&request(self.id.clone())).await?;
        Ok(answered.answer)
    }

    /// Starts it.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.call(|job_id| StartReplicationJob { job_id }).await?;
        Ok(())
    }

    /// Lets the time until its next run pass.
    pub async fn let_next_run_be_due(&self, cluster: &Cluster) -> anyhow::Result<()> {
        self.let_timer_be_due(cluster, "run").await
    }

    /// Lets the time until one of its timers pass: `start`, `run`, `expire` or `purge`.
    pub async fn let_timer_be_due(&self, cluster: &Cluster, kind: &str) -> anyhow::Result<()> {
        let mut connection = sqlx::PgConnection::connect(&cluster.postgres.url()).await?;
        let set = sqlx::query("update timer set due_at = now() where job_id = $1 and kind = $2")
            .bind(&self.id)
            .bind(kind)
            .execute(&mut connection)
            .await?;
        ensure!(
            set.rows_affected() == 1,
            "job {} has no timer {kind}",
            self.id
        );
        sqlx::query("select pg_notify($1, '')")
            .bind(store::job::TIMER_CHANNEL)
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Bytes that a full copy of its disks must send.
    pub fn bytes_needed(&self) -> anyhow::Result<u64> {
        self.disks
            .iter()
            .map(|path| disk::bytes_of_chunks_with_data(path))
            .sum()
    }

    /// The job's history, oldest first.
    pub async fn history(
        &self,
        cluster: &Cluster,
    ) -> anyhow::Result<Vec<store::job::explain::JobEvent>> {
        Ok(cluster
            .store
            .job_history(&self.tenant, &self.id.parse()?)
            .await?)
    }

    /// The job as the API shows it.
    pub async fn describe(&self) -> anyhow::Result<ReplicationJob> {
        let request = DescribeReplicationJobs {
            job_id: Some(vec![self.id.clone()]),
            ..DescribeReplicationJobs::default()
        };
        let listed = self.client.call(&request).await?.answer;
        let job = listed.replication_jobs.into_iter().next();
        job.with_context(|| format!("job {} is not there", self.id))
    }

    /// The job's `StatusInfo`, parsed.
    pub async fn status_info(&self) -> anyhow::Result<StatusInfo> {
        let job = self.describe().await?;
        Ok(StatusInfo::from_json(&job.status_info.unwrap_or_default())?)
    }

    /// Waits until `Status`, or `BusinessStatus`, is one of `wanted`. A job that fails ends the wait, unless failure is
    /// wanted.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        wanted: &[&str],
    ) -> anyhow::Result<ReplicationJob> {
        let mut last = None;
        let found = wait::some(
            timeout,
            &format!("job {} is {}", self.id, wanted.join(" or ")),
            async || {
                // A gateway that is being restarted is no reason to give up.
                let Ok(job) = self.describe().await else {
                    return Ok(None);
                };
                last = Some(job.clone());
                let statuses = [Some(&job.status), job.business_status.as_ref()];
                let is_wanted = |status: &String| wanted.contains(&status.as_str());
                if statuses.into_iter().flatten().any(is_wanted) {
                    return Ok(Some(job));
                }
                ensure!(job.status != "InError", "job {} failed: {job:#?}", self.id);
                Ok(None)
            },
        )
        .await;
        found.with_context(|| format!("last seen: {last:#?}"))
    }

    /// Waits until more than `bytes` have crossed the wire in this run.
    pub async fn wait_for_wire(&self, timeout: Duration, bytes: u64) -> anyhow::Result<StatusInfo> {
        wait::some(
            timeout,
            &format!("job {} has sent {bytes} bytes", self.id),
            async || {
                let info = self.status_info().await?;
                Ok((info.bytes_wire.unwrap_or(0) > bytes).then_some(info))
            },
        )
        .await
    }

    /// Waits until more than `bytes` of its disks are durable in the instance.
    pub async fn wait_for_bytes(
        &self,
        timeout: Duration,
        bytes: u64,
    ) -> anyhow::Result<StatusInfo> {
        wait::some(
            timeout,
            &format!("job {} has {bytes} durable bytes", self.id),
            async || {
                let info = self.status_info().await?;
                Ok((info.bytes_durable.unwrap_or(0) > bytes).then_some(info))
            },
        )
        .await
    }

    /// Checks that every delivered disk, raw and qcow2, has the source's bytes with zeros behind them.
    pub async fn check_image(&self) -> anyhow::Result<()> {
        let job = self.describe().await?;
        ensure!(
            job.status == "Finished" || job.status == "Waiting",
            "the job has not delivered: {job:#?}"
        );
        ensure!(
            job.progress == 100.0,
            "a job that has delivered is at 100: {job:#?}"
        );
        let image = job
            .image_id
            .context("a job that has delivered has an image")?;
        let image = self.images.join(image);
        for (index, source) in self.disks.iter().enumerate() {
            let size = u64::from(target_gib(source)?) * GIB;
            disk::check_equal(source, &image.join(format!("disk-{index}.raw")), size)?;
            let unpacked = tempfile::Builder::new()
                .suffix(".raw")
                .tempfile_in(&self.images)?;
            let status = std::process::Command::new("qemu-img")
                .args(["convert", "-f", "qcow2", "-O", "raw"])
                .arg(image.join(format!("disk-{index}.qcow2")))
                .arg(unpacked.path())
                .status()
                .context("run qemu-img")?;
            ensure!(
                status.success(),
                "qemu-img can't read disk {index} of {}",
                image.display()
            );
            disk::check_equal(source, unpacked.path(), size)?;
        }
        Ok(())
    }
}

fn target_gib(path: &std::path::Path) -> anyhow::Result<u32> {
    let gib = std::fs::metadata(path)?.len().div_ceil(GIB);
    Ok(u32::try_from(gib)?.max(SMALLEST_GIB))
}
