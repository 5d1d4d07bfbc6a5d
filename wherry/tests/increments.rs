//! A job that delivers again and again, with real processes: two runs, the images that stay, and the cut-over.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use smc::model::{CutOverReplicationJob, DescribeImages, DescribeSourceServers, SourceState};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_job_delivers_twice_keeps_one_image_and_is_cut_over() -> anyhow::Result<()> {
    let cluster = Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment: Vec::new(),
    })
    .await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant
        .source(&cluster, "web", &[64 * MIB, 32 * MIB])
        .await?;
    let options = JobOptions {
        increments: Some((1, 1)),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "again", &options).await?;
    job.start().await?;
    let first = job.wait_for(PATIENCE, &["Waiting"]).await?;
    job.check_image().await?;
    let leftovers = std::fs::read_dir(cluster.path("worker/instances"))?.count();
    ensure!(
        leftovers == 0,
        "{leftovers} instances wait for the next run"
    );

    // The server lives on, and the hour to the next run passes.
    let disk = std::fs::File::options()
        .write(true)
        .open(&source.disks[0])?;
    disk.write_all_at(&vec![7; 3 * MIB as usize], 11 * MIB)?;
    disk.sync_all()?;
    job.let_next_run_be_due(&cluster).await?;
    let second = wait::some(PATIENCE, "the second run has delivered", async || {
        let job = job.describe().await?;
        ensure!(job.status != "InError", "the run failed: {job:#?}");
        let is_new = job.image_id != first.image_id && job.status == "Waiting";
        Ok(is_new.then_some(job))
    })
    .await?;
    job.check_image().await?;
    let runs = &second.replication_job_runs;
    ensure!(
        runs[0].r#type == "Manual" && runs[1].r#type == "Schedule",
        "who started the runs: {runs:#?}"
    );

    // One image is kept: rows and files of the first one go.
    let old = first.image_id.context("an image")?;
    let images = wait::some(PATIENCE, "the first image is gone", async || {
        let listed = tenant.client.call(&DescribeImages::default()).await?.answer;
        let is_gone = listed.total_count == 1 && !cluster.images().join(&old).exists();
        Ok(is_gone.then_some(listed.images))
    })
    .await?;
    ensure!(
        Some(&images[0].image_id) == second.image_id.as_ref()
            && images[0].name == "again-image_CYCLE_2",
        "the second image stays: {images:#?}"
    );

    job.call(|job_id| CutOverReplicationJob {
        job_id,
        sync_data: None,
    })
    .await?;
    let finished = job.wait_for(PATIENCE, &["Finished"]).await?;
    ensure!(
        finished.image_id == second.image_id,
        "the last image is the job's: {finished:#?}"
    );
    job.check_image().await?;
    let request = DescribeSourceServers {
        state: Some(SourceState::Available),
        ..DescribeSourceServers::default()
    };
    let shown = tenant.client.call(&request).await?;
    ensure!(shown.total_count == 1, "the source is free: {shown:#?}");
    Ok(())
}

#[tokio::test]
async fn a_cut_over_with_data_delivers_what_was_written_last() -> anyhow::Result<()> {
    let cluster = Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment: Vec::new(),
    })
    .await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(&cluster, "web", &[48 * MIB]).await?;
    let options = JobOptions {
        increments: Some((24, 2)),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "again", &options).await?;
    job.start().await?;
    job.wait_for(PATIENCE, &["Waiting"]).await?;
    let disk = std::fs::File::options()
        .write(true)
        .open(&source.disks[0])?;
    disk.write_all_at(b"the last of it", 5 * MIB)?;
    disk.sync_all()?;
    job.call(|job_id| CutOverReplicationJob {
        job_id,
        sync_data: Some(true),
    })
    .await?;
    let finished = job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let runs = finished.replication_job_runs;
    ensure!(
        runs.len() == 2 && runs.iter().all(|run| run.image_id.is_some()),
        "both images stay: {runs:#?}"
    );
    Ok(())
}
