//! `kill -9` of every process in turn, in the middle of a copy: each job still finishes with the right bytes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cluster::{Cluster, ClusterConfig, Job, JobOptions, Source};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(150);

/// Leases that run out fast, so that a killed worker's job is taken over within the test's patience.
fn short_leases() -> Vec<(String, String)> {
    [
        ("WHERRY_LEASE_TTL_SECS", "4"),
        ("WHERRY_LEASE_RENEWAL_SECS", "1"),
        ("WHERRY_LEASE_MARGIN_SECS", "1"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

async fn copying(workers: usize) -> anyhow::Result<(Cluster, Source, Job)> {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_wherry"));
    let cluster = Cluster::start(ClusterConfig {
        binary,
        workers,
        environment: short_leases(),
    })
    .await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant
        .source(&cluster, "victim", &[256 * MIB, 32 * MIB])
        .await?;
    // 160 Mbit/s: the copy takes long enough to be hit in the middle.
    let options = JobOptions {
        parameters: r#"{"bandwidth_limit":160000,"compress_level":0}"#.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "survivor", &options).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 48 * MIB).await?;
    Ok((cluster, source, job))
}

async fn finishes_right(job: &Job) -> anyhow::Result<()> {
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}

#[tokio::test]
async fn a_killed_agent_goes_on_where_it_was() -> anyhow::Result<()> {
    let (_cluster, mut source, job) = copying(1).await?;
    source.agent.kill()?;
    source.agent.restart()?;
    finishes_right(&job).await
}

#[tokio::test]
async fn a_killed_receiver_is_replaced_and_goes_on() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(1).await?;
    let receiver = receiver_of(&mut cluster, "worker-1").await?;
    let before = job.status_info().await?.bytes_durable.unwrap_or(0);
    kill(receiver, Signal::SIGKILL).context("kill the receiver")?;
    finishes_right(&job).await?;
    ensure!(before > 0, "the copy was under way");
    Ok(())
}

#[tokio::test]
async fn a_killed_worker_is_replaced_by_another() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(2).await?;
    let holder = holder_of_the_lease(&mut cluster).await?;
    cluster.role(&holder).kill()?;
    finishes_right(&job).await
}

#[tokio::test]
async fn a_paused_worker_changes_nothing_after_it_lost_its_lease() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(2).await?;
    let holder = holder_of_the_lease(&mut cluster).await?;
    cluster.role(&holder).signal(Signal::SIGSTOP)?;
    let epoch = epoch_of(&cluster, &job).await?;
    wait::until(PATIENCE, "another worker holds the lease", async || {
        Ok(epoch_of(&cluster, &job).await? > epoch)
    })
    .await?;
    cluster.role(&holder).signal(Signal::SIGCONT)?;
    finishes_right(&job).await?;
    let finishes = cluster
        .store
        .job_history(&job.tenant, &job.id.parse()?)
        .await?;
    let finishes = finishes
        .iter()
        .filter(|event| event.event == domain::job::Event::Finish)
        .count();
    ensure!(finishes == 1, "the job finished {finishes} times");
    Ok(())
}

#[tokio::test]
async fn a_killed_scheduler_is_missed_by_nobody() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(1).await?;
    cluster.kill_and_restart("scheduler").await?;
    finishes_right(&job).await
}

#[tokio::test]
async fn a_killed_gateway_is_missed_by_nobody() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(1).await?;
    cluster.kill_and_restart("gateway").await?;
    finishes_right(&job).await
}

#[tokio::test]
async fn a_job_started_while_nats_is_wiped_still_runs() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(1).await?;
    cluster.wipe_nats().await?;
    let tenant = cluster.tenant("bob").await?;
    let source = tenant.source(&cluster, "late", &[24 * MIB]).await?;
    let late = source
        .create_job(&cluster, "after-the-wipe", &JobOptions::default())
        .await?;
    late.start().await?;
    finishes_right(&late).await?;
    finishes_right(&job).await
}

async fn epoch_of(cluster: &Cluster, job: &Job) -> anyhow::Result<i64> {
    let history = cluster
        .store
        .job_history(&job.tenant, &job.id.parse()?)
        .await?;
    Ok(history.iter().map(|event| event.epoch.0).max().unwrap_or(0))
}

/// The worker that has a receiver as its child.
async fn holder_of_the_lease(cluster: &mut Cluster) -> anyhow::Result<String> {
    for name in ["worker-1", "worker-2"] {
        if !children(cluster.role(name).pid().context("the worker runs")?)?.is_empty() {
            return Ok(name.to_owned());
        }
    }
    anyhow::bail!("no worker has a receiver")
}

async fn receiver_of(cluster: &mut Cluster, worker: &str) -> anyhow::Result<Pid> {
    let worker = cluster.role(worker).pid().context("the worker runs")?;
    children(worker)?
        .first()
        .copied()
        .context("the worker has a receiver")
}

fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{parent}/task"))? {
        let listed = std::fs::read_to_string(task?.path().join("children"))?;
        children.extend(
            listed
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .map(Pid::from_raw),
        );
    }
    Ok(children)
}
