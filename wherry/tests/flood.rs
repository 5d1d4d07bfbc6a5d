//! A tenant with a hundred jobs beside one with a few; and everything falling at once while they wait.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::cluster::{Cluster, ClusterConfig, Job, JobOptions};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Jobs of the flood that are started. Each holds a slot of a worker for [`HELD_SECS`], since its agent never comes:
/// all of them take two minutes.
const FLOOD: u32 = 100;
const HELD_SECS: u64 = 5;
const SLOTS: u64 = 4;

/// Time within which the small tenant's jobs reach their receiver. It covers the jobs that the workers got before, as
/// many as there are slots, and one that ends. A queue in the order of arrival would take two minutes.
const DISPATCH: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_small_tenant_is_served_beside_a_flood_also_after_everything_fell() -> anyhow::Result<()>
{
    let environment = [
        ("WHERRY_WORKER_SLOTS", SLOTS.to_string()),
        ("WHERRY_ADMISSION_WINDOW", SLOTS.to_string()),
        ("WHERRY_AGENT_PATIENCE_SECS", HELD_SECS.to_string()),
        ("WHERRY_LEASE_TTL_SECS", "4".to_owned()),
        ("WHERRY_LEASE_RENEWAL_SECS", "1".to_owned()),
        ("WHERRY_LEASE_MARGIN_SECS", "1".to_owned()),
    ];
    let mut cluster = Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment: environment
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
    })
    .await?;
    let (flood, small) = (
        cluster.tenant("flood").await?,
        cluster.tenant("small").await?,
    );
    let mut jobs = Vec::new();
    let mut sources = Vec::new();
    for number in 0..5 {
        let name = format!("small-{number}");
        let source = small.source(&cluster, &name, &[2 * MIB]).await?;
        jobs.push(
            source
                .create_job(&cluster, &name, &JobOptions::default())
                .await?,
        );
        sources.push(source);
    }
    cluster.start_flood(&flood, FLOOD).await?;
    wait::until(PATIENCE, "the flood has every slot", async || {
        Ok(cluster.leases().await? >= i64::try_from(SLOTS)?)
    })
    .await?;

    let mut slowest = Duration::ZERO;
    for job in &jobs[..4] {
        slowest = slowest.max(dispatched(job).await?);
    }
    println!("slowest dispatch of the small tenant beside the flood: {slowest:?}");
    ensure!(
        slowest <= DISPATCH,
        "a job of the small tenant waited {slowest:?}, {DISPATCH:?} is its bound"
    );
    let left = cluster.jobs_without_worker(&flood.id).await?;
    ensure!(
        left > 0,
        "the flood was over before the small tenant was served"
    );

    for role in ["gateway", "scheduler", "worker-1"] {
        cluster.role(role).kill()?;
    }
    cluster.wipe_nats().await?;
    let fallen = Instant::now();
    for role in ["gateway", "scheduler", "worker-1"] {
        cluster.role(role).restart()?;
    }
    for role in ["gateway", "scheduler", "worker-1"] {
        cluster.ready(role).await?;
    }
    let after = dispatched(&jobs[4]).await?;
    wait::until(PATIENCE, "the flood goes on", async || {
        Ok(cluster.jobs_without_worker(&flood.id).await? < left)
    })
    .await?;
    let recovered = fallen.elapsed();
    println!("dispatch after the fall: {after:?}; all goes on after {recovered:?}");
    ensure!(
        after <= DISPATCH + Duration::from_secs(10),
        "a job waited {after:?} after the fall"
    );
    for job in &jobs {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        job.check_image().await?;
    }
    Ok(())
}

/// Starts the job; answers with the time until its agent is sending.
async fn dispatched(job: &Job) -> anyhow::Result<Duration> {
    job.start().await?;
    let since = Instant::now();
    job.wait_for(PATIENCE, &["Syncing", "Processing", "Cleaning", "Finished"])
        .await?;
    Ok(since.elapsed())
}
