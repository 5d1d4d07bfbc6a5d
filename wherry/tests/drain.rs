//! A worker that is ended hands its runs over. They go on elsewhere, at once, and no counter counts them as a loss.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cluster::{Cluster, ClusterConfig, Job, JobOptions, Source};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Lifetime of a lease that is not given back: a run that goes on earlier was handed over.
const LEASE: Duration = Duration::from_secs(30);

async fn started(
    environment: Vec<(String, String)>,
    parameters: &str,
) -> anyhow::Result<(Cluster, Source, Job)> {
    let cluster = Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 2,
        environment,
    })
    .await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant
        .source(&cluster, "web", &[96 * MIB, 16 * MIB])
        .await?;
    let options = JobOptions {
        parameters: parameters.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "moved", &options).await?;
    job.start().await?;
    Ok((cluster, source, job))
}

/// 80 Mbit/s, without compression: slow enough to be met in the middle.
const SLOWLY: &str = r#"{"bandwidth_limit":80000,"compress_level":0}"#;

/// Ends the worker by SIGTERM. The worker must report success, and another one must drive the job before the lease
/// would have run out.
async fn drain(cluster: &mut Cluster, job: &Job, holder: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    cluster.role(holder).signal(Signal::SIGTERM)?;
    let ended = cluster.role(holder).ended().await?;
    ensure!(ended.code() == Some(0), "the drain ended with {ended}");
    let other = cluster.worker_of(job).await?;
    ensure!(other != holder, "{holder} has ended");
    ensure!(
        since.elapsed() < LEASE,
        "it waited for the lease to run out"
    );
    Ok(())
}

/// The job delivers, and neither its row nor the scheduler has counted a lost lease.
async fn finishes_without_a_loss(cluster: &Cluster, job: &Job) -> anyhow::Result<()> {
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let facts = cluster
        .store
        .job_facts(&job.tenant, &job.id.parse()?)
        .await?
        .context("the job is there")?;
    ensure!(facts.leases_lost == 0, "{} leases lost", facts.leases_lost);
    let swept = cluster.metrics("scheduler").await?;
    ensure!(
        !swept
            .lines()
            .any(|line| line.starts_with("wherry_leases_swept_total ") && !line.ends_with(" 0")),
        "the scheduler has swept a lease"
    );
    let history = job.history(cluster).await?;
    let handed: Vec<_> = history
        .iter()
        .filter(|row| row.event == domain::job::Event::LeaseLost)
        .map(|row| row.detail.as_str())
        .collect();
    ensure!(
        handed == ["handed over by a worker that drains"],
        "the history says otherwise: {handed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_copy_goes_on_where_it_was() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = started(Vec::new(), SLOWLY).await?;
    job.wait_for_wire(PATIENCE, 32 * MIB).await?;
    let holder = cluster.worker_of(&job).await?;
    drain(&mut cluster, &job, &holder).await?;
    finishes_without_a_loss(&cluster, &job).await?;
    let (needed, sent) = (job.bytes_needed()?, job.status_info().await?.bytes_wire);
    let sent = sent.context("StatusInfo says what was sent")?;
    // Received bytes are flushed before the run is handed over: only those under way are sent again.
    ensure!(
        sent <= needed + 24 * MIB,
        "{sent} bytes crossed the wire, the disks hold {needed}"
    );
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_being_made_is_made_elsewhere() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (script, hold) = (folder.path().join("qemu-img"), folder.path().join("hold"));
    std::fs::write(&hold, "")?;
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nwhile [ -e '{}' ]; do sleep 0.1; done\nexec qemu-img \"$@\"\n",
            hold.display()
        ),
    )?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    let qemu_img = ("WHERRY_QEMU_IMG".to_owned(), script.display().to_string());
    let (mut cluster, _source, job) = started(vec![qemu_img], "").await?;
    wait::until(PATIENCE, "the image is being made", async || {
        let doing = job.status_info().await?.doing.unwrap_or_default();
        Ok(doing.starts_with("making the image"))
    })
    .await?;
    let holder = cluster.worker_of(&job).await?;
    drain(&mut cluster, &job, &holder).await?;
    std::fs::remove_file(&hold)?;
    finishes_without_a_loss(&cluster, &job).await?;
    let images = std::fs::read_dir(cluster.images())?.count();
    ensure!(images == 1, "{images} images lie in the store");
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_that_hangs() -> anyhow::Result<()> {
    let lease = [
        ("WHERRY_LEASE_TTL_SECS", "4"),
        ("WHERRY_LEASE_RENEWAL_SECS", "1"),
        ("WHERRY_LEASE_MARGIN_SECS", "1"),
    ];
    let lease = lease.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (mut cluster, _source, job) = started(lease.to_vec(), SLOWLY).await?;
    job.wait_for_wire(PATIENCE, 32 * MIB).await?;
    let holder = cluster.worker_of(&job).await?;
    // A receiver that does not answer: the drain waits for it.
    let receiver = Pid::from_raw(cluster.receiver_of(&job).await?);
    kill(receiver, Signal::SIGSTOP)?;
    cluster.role(&holder).signal(Signal::SIGTERM)?;
    wait::until(PATIENCE, "it drains", async || {
        Ok(cluster.role(&holder).log().contains("draining: "))
    })
    .await?;
    cluster.role(&holder).signal(Signal::SIGTERM)?;
    let ended = cluster.role(&holder).ended().await?;
    ensure!(ended.code() == Some(130), "it ended with {ended}");
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}
