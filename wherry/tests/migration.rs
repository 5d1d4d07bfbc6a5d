//! The main job, with real processes: two tenants, three sources, several disks each, all at once; and a stop in the
//! middle.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use smc::model::{DeleteReplicationJob, DescribeReplicationJobs, StopReplicationJob};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

fn config() -> ClusterConfig {
    ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment: Vec::new(),
    }
}

#[tokio::test]
async fn every_delivered_disk_equals_its_source() -> anyhow::Result<()> {
    let cluster = Cluster::start(config()).await?;
    let (alice, bob) = (cluster.tenant("alice").await?, cluster.tenant("bob").await?);
    let sources = [
        alice
            .source(&cluster, "web", &[96 * MIB, 33 * MIB + 512])
            .await?,
        alice
            .source(&cluster, "db", &[64 * MIB, 48 * MIB, MIB / 2])
            .await?,
        bob.source(&cluster, "mail", &[80 * MIB]).await?,
    ];
    let mut jobs = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let options = JobOptions {
            parameters: r#"{"checksum":true}"#.to_owned(),
            ..JobOptions::default()
        };
        let job = source
            .create_job(&cluster, &format!("job-{number}"), &options)
            .await?;
        job.start().await?;
        jobs.push(job);
    }
    for job in &jobs {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        job.check_image().await?;
    }

    // Neither tenant sees what is the other's, by listing or by name.
    let listed = bob.client.call(&DescribeReplicationJobs::default()).await?;
    ensure!(listed.total_count == 1, "bob has one job: {listed:#?}");
    let job_id = jobs[0].id.clone();
    let request = DescribeReplicationJobs {
        job_id: Some(vec![job_id.clone()]),
        ..DescribeReplicationJobs::default()
    };
    let guessed = bob.client.call(&request).await?;
    ensure!(
        guessed.total_count == 0,
        "alice's job is not bob's: {guessed:#?}"
    );
    let refused = bob.client.call(&DeleteReplicationJob { job_id }).await;
    ensure!(
        refused.is_err_and(|error| error.code() == Some("InvalidJobId.NotFound")),
        "alice's job is not bob's to delete"
    );

    // Nothing of the runs is left but the images.
    let leftovers = std::fs::read_dir(cluster.path("worker/instances"))?.count();
    ensure!(leftovers == 0, "{leftovers} instances are left");
    Ok(())
}

#[tokio::test]
async fn a_stopped_job_goes_on_where_it_stopped() -> anyhow::Result<()> {
    let cluster = Cluster::start(config()).await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(&cluster, "big", &[384 * MIB]).await?;
    // 160 Mbit/s: slow enough to be stopped in the middle. Without compression the wire carries what the disk holds.
    let options = JobOptions {
        parameters: r#"{"bandwidth_limit":160000,"compress_level":0}"#.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "stop-and-go", &options).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 128 * MIB).await?;
    job.call(|job_id| StopReplicationJob { job_id }).await?;
    job.wait_for(PATIENCE, &["Stopped"]).await?;
    let first = job.status_info().await?;
    let durable = first.bytes_durable.unwrap_or(0);
    ensure!(
        durable >= 128 * MIB,
        "a stop keeps what was copied, but only {durable} bytes are left"
    );

    job.start().await?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let second = job.status_info().await?;
    let sent = first.bytes_wire.unwrap_or(0) + second.bytes_wire.unwrap_or(0);
    let needed = job.bytes_needed()?;
    ensure!(
        sent >= needed,
        "{sent} bytes crossed the wire, the disk holds {needed}: the count is wrong"
    );
    let twice = sent - needed;
    println!("bytes needed {needed}, sent {sent}, sent twice (with headers) {twice}");
    ensure!(
        twice <= 64 * MIB,
        "{twice} bytes were sent twice, one flush window is 64 MiB"
    );
    Ok(())
}
