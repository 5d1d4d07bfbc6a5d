//! Runs that fail as their owner sees it: the code, the sentence, the command line's output. The next try must succeed.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use store::tenant::Quotas;
use testkit::cluster::{
    Cluster, ClusterConfig, Job, JobOptions, LoopDevice, Shell, SmallStore, Source, has,
};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// 80 Mbit/s, without compression: slow enough to be met in the middle.
const SLOWLY: &str = r#"{"bandwidth_limit":80000,"compress_level":0}"#;

async fn cluster(environment: &[(&str, &str)]) -> anyhow::Result<Cluster> {
    Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    })
    .await
}

/// A source of alice with a job that was not started yet.
async fn prepared(
    cluster: &Cluster,
    sizes: &[u64],
    parameters: &str,
) -> anyhow::Result<(Source, Job, Shell)> {
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(cluster, "web", sizes).await?;
    let options = JobOptions {
        parameters: parameters.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, "failing", &options).await?;
    let shell = tenant.shell(cluster)?;
    Ok((source, job, shell))
}

/// The job fails with this code. Its sentence has these parts, in the API's fields and in the command line's output.
async fn fails(job: &Job, shell: &Shell, code: &str, parts: &[&str]) -> anyhow::Result<()> {
    let failed = wait::some(PATIENCE, "the job fails", async || {
        let shown = job.describe().await?;
        ensure!(shown.status != "Finished", "it finished: {shown:#?}");
        Ok((shown.status == "InError").then_some(shown))
    })
    .await?;
    ensure!(failed.error_code == code, "not {code}: {failed:#?}");
    let info = job.status_info().await?;
    ensure!(info.error_code.as_deref() == Some(code), "{info:?}");
    has(&info.error_msg.unwrap_or_default(), parts)?;
    has(&unfolded(&shell.says("job show failing")?), &[code])?;
    has(&unfolded(&shell.says("job show failing")?), parts)?;
    has(&unfolded(&shell.says("job explain failing")?), parts)
}

/// Text without the line breaks that a table may have put into it.
fn unfolded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The cause is put right: the same job, started again by command line, delivers.
async fn succeeds_now(job: &Job, shell: &Shell) -> anyhow::Result<()> {
    has(&shell.says("job start failing")?, &["started"])?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let info = job.status_info().await?;
    ensure!(
        info.error_code.is_none() && info.error_msg.is_none(),
        "the old failure is still shown: {info:?}"
    );
    Ok(())
}

#[tokio::test]
async fn too_little_room_is_found_before_the_copy_and_in_the_middle_of_it() -> anyhow::Result<()> {
    let cluster = cluster(&[]).await?;
    let (_source, job, shell) = prepared(&cluster, &[96 * MIB], SLOWLY).await?;
    let instances = SmallStore::over(&cluster.path("worker/instances"), 24 * MIB)?;
    job.start().await?;
    let sentence = [
        "No copy was begun",
        "the store of copies has",
        "start the job again",
    ];
    fails(&job, &shell, "ReplicationJob.TargetFull", &sentence).await?;
    ensure!(
        job.status_info().await?.bytes_durable.unwrap_or(0) == 0,
        "it copied all the same"
    );

    instances.grow(512 * MIB)?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 8 * MIB).await?;
    instances.fill(0)?;
    let sentence = ["no space left at disk-", "start the job again"];
    fails(&job, &shell, "ReplicationJob.TargetFull", &sentence).await?;

    // A deleted image goes although nothing can be written there.
    let free = instances.free()?;
    shell.says("job delete failing")?;
    wait::until(PATIENCE, "the copy is removed", async || {
        Ok(instances.free()? > free + 4 * MIB)
    })
    .await
}

#[tokio::test]
async fn receivers_leave_the_reserve_free() -> anyhow::Result<()> {
    let cluster = cluster(&[("WHERRY_RESERVE_MIB", "64")]).await?;
    let (_source, job, shell) = prepared(&cluster, &[96 * MIB], SLOWLY).await?;
    let instances = SmallStore::over(&cluster.path("worker/instances"), 512 * MIB)?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 8 * MIB).await?;
    instances.fill(60 * MIB)?;
    let sentence = ["must stay free", "start the job again"];
    fails(&job, &shell, "ReplicationJob.TargetFull", &sentence).await?;
    ensure!(
        instances.free()? > 40 * MIB,
        "little of the reserve is left"
    );
    instances.empty()?;
    succeeds_now(&job, &shell).await
}

#[tokio::test]
async fn a_tenant_stores_no_more_than_it_may() -> anyhow::Result<()> {
    let cluster = cluster(&[]).await?;
    let (_source, job, shell) = prepared(&cluster, &[48 * MIB], SLOWLY).await?;
    let limit = async |bytes: Option<u64>| -> anyhow::Result<()> {
        let store = &cluster.store;
        let tenant = store
            .tenant_named("alice")
            .await?
            .context("alice is a tenant")?;
        let quotas = Quotas {
            max_bytes: bytes,
            ..tenant.quotas
        };
        ensure!(
            store.set_quotas(&tenant.id, &quotas).await?,
            "alice is gone"
        );
        Ok(())
    };
    limit(Some(40 * MIB)).await?;
    let refused = shell.fails("job start failing")?;
    has(
        &unfolded(&refused),
        &["QuotaExceeded.Bytes", "needs up to", "are allowed"],
    )?;

    limit(None).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 8 * MIB).await?;
    limit(Some(4 * MIB)).await?;
    let sentence = ["4194304 are allowed", "start the job again"];
    fails(&job, &shell, "QuotaExceeded.Bytes", &sentence).await?;

    limit(Some(1024 * MIB)).await?;
    succeeds_now(&job, &shell).await?;
    let store = &cluster.store;
    let tenant = store
        .tenant_named("alice")
        .await?
        .context("alice is a tenant")?;
    let held = store.bytes_held(&tenant.id).await?;
    ensure!(
        (48 * MIB..110 * MIB).contains(&held),
        "a raw disk and a qcow2 of 48 MiB take {held}"
    );
    Ok(())
}

#[tokio::test]
async fn the_image_store_is_full() -> anyhow::Result<()> {
    let cluster = cluster(&[]).await?;
    let (_source, job, shell) = prepared(&cluster, &[48 * MIB], "").await?;
    let images = SmallStore::over(&cluster.images(), 24 * MIB)?;
    job.start().await?;
    let sentence = ["the image store", "bytes free", "start the job again"];
    fails(&job, &shell, "ReplicationJob.TargetFull", &sentence).await?;
    ensure!(
        std::fs::read_dir(cluster.images())?.count() == 0,
        "half an image is left"
    );
    // Answers to the tenant leave out the path where the operator keeps images. The operator finds it in the history.
    let place = cluster.images().display().to_string();
    let answers = smc::model::to_json(&job.describe().await?).to_string()
        + &shell.says("job explain failing")?;
    ensure!(!answers.contains(&place), "{answers}");
    let history = cluster.store.history(0, 1000, None).await?;
    ensure!(
        history.iter().any(|row| row.cause.contains(&place)),
        "no row of the history has {place}: {history:#?}"
    );
    images.grow(1024 * MIB)?;
    succeeds_now(&job, &shell).await
}

#[tokio::test]
async fn a_disk_of_the_source_is_gone_in_the_middle() -> anyhow::Result<()> {
    let cluster = cluster(&[("WHERRY_HEARTBEAT_SECS", "1")]).await?;
    let (source, job, shell) = prepared(&cluster, &[64 * MIB, 32 * MIB], SLOWLY).await?;
    job.start().await?;
    job.wait_for_wire(PATIENCE, 16 * MIB).await?;
    let (disk, away) = (&source.disks[0], cluster.path("away"));
    std::fs::rename(disk, &away)?;
    // A process that has the disk open still reads it: the agent has to open it again.
    let receiver = cluster.receiver_of(&job).await?;
    kill(Pid::from_raw(receiver), Signal::SIGKILL)?;
    let path = disk.display().to_string();
    let sentence = [path.as_str(), "can't"];
    fails(&job, &shell, "SourceServer.DiskUnreadable", &sentence).await?;

    std::fs::rename(&away, disk)?;
    usable(&source).await?;
    succeeds_now(&job, &shell).await
}

#[tokio::test]
async fn the_end_of_a_disk_cannot_be_read() -> anyhow::Result<()> {
    const GOOD: u64 = 12 * MIB - 128 * 1024;
    let cluster = cluster(&[]).await?;
    let content: Vec<u8> = (0..12 * MIB / 4)
        .flat_map(|word| u32::try_from(word * 2 + 1).map(u32::to_le_bytes))
        .flatten()
        .collect();
    let file = cluster.path("failing.raw");
    std::fs::write(&file, &content)?;
    let device = LoopDevice::over(&file)?;
    let tenant = cluster.tenant("alice").await?;
    let disks = vec![device.path().to_owned()];
    let source = tenant.source_of(&cluster, "web", disks).await?;
    device.lose_from(GOOD)?;

    let job = source
        .create_job(&cluster, "failing", &JobOptions::default())
        .await?;
    let shell = tenant.shell(&cluster)?;
    job.start().await?;
    let path = device.path().display().to_string();
    let place = format!("131072 bytes at byte {GOOD}");
    let sentence = [path.as_str(), place.as_str()];
    fails(&job, &shell, "SourceServer.DiskUnreadable", &sentence).await?;
    has(&shell.says("job delete failing")?, &["deleted"])?;
    wait::until(PATIENCE, "the job is gone", async || {
        Ok(job.describe().await.is_err())
    })
    .await?;

    let zeros = JobOptions {
        parameters: r#"{"bad_sectors":"zero","checksum":true}"#.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "salvage", &zeros).await?;
    job.start().await?;
    let done = job.wait_for(PATIENCE, &["Finished"]).await?;
    let info = job.status_info().await?;
    ensure!(
        (info.unreadable_ranges, info.unreadable_bytes) == (Some(1), Some(131_072)),
        "{info:?}"
    );
    let image = done.image_id.context("an image")?;
    let mut delivered = vec![1; content.len()];
    File::open(cluster.images().join(image).join("disk-0.raw"))?.read_exact(&mut delivered)?;
    let (good, lost) = delivered.split_at(usize::try_from(GOOD)?);
    ensure!(good == &content[..good.len()], "what can be read is there");
    ensure!(lost.iter().all(|byte| *byte == 0), "the rest is zeros");
    let sentence = ["128 KiB that the source can't read"];
    has(&unfolded(&shell.says("job show salvage")?), &sentence)
}

/// Writes to a disk all the time, until it is dropped.
struct Writer(mpsc::SyncSender<()>);

impl Writer {
    fn of(disk: &Path) -> anyhow::Result<Self> {
        let disk = File::options().write(true).open(disk)?;
        let (held, ends) = mpsc::sync_channel::<()>(0);
        std::thread::spawn(move || {
            for number in 0_u64.. {
                let written = disk.write_all_at(&number.to_le_bytes(), number % 1000 * 4096);
                let pause = Duration::from_millis(20);
                if written.is_err()
                    || ends.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Disconnected)
                {
                    return;
                }
            }
        });
        Ok(Self(held))
    }

    fn ends(self) {
        drop(self.0);
    }
}

#[tokio::test]
async fn a_disk_is_written_all_the_time() -> anyhow::Result<()> {
    let cluster = cluster(&[]).await?;
    let (source, job, shell) = prepared(&cluster, &[16 * MIB, 8 * MIB], "").await?;
    let writer = Writer::of(&source.disks[0])?;
    job.start().await?;
    let path = source.disks[0].display().to_string();
    let sentence = [
        path.as_str(),
        "was written while it was copied",
        "Stop what writes to the disk",
    ];
    fails(&job, &shell, "SourceServer.DiskChanged", &sentence).await?;

    shell.says("job modify failing --consistency fuzzy")?;
    has(&shell.says("job start failing")?, &["started"])?;
    let done = job.wait_for(PATIENCE, &["Finished"]).await?;
    writer.ends();
    let words = ["not one moment in time"];
    let image = done.image_id.context("an image")?;
    let description = cluster.images().join(&image).join("image.json");
    has(&std::fs::read_to_string(description)?, &words)?;
    has(&done.status_info.unwrap_or_default(), &words)?;
    for line in ["job show failing", "job explain failing"] {
        has(&unfolded(&shell.says(line)?), &words)?;
    }
    let shown = shell.says(&format!("image show {image}"))?;
    has(&shown, &["not one moment in time", "one moment in time"])
}

#[tokio::test]
async fn the_agent_is_gone_for_too_long() -> anyhow::Result<()> {
    let cluster = cluster(&[("WHERRY_AGENT_PATIENCE_SECS", "8")]).await?;
    let (mut source, job, shell) = prepared(&cluster, &[64 * MIB, 32 * MIB], SLOWLY).await?;
    job.start().await?;
    job.wait_for_wire(PATIENCE, 24 * MIB).await?;
    source.agent.kill()?;
    source.let_silence_be_long(&cluster).await?;
    let waiting = format!(
        "waiting for the agent of {}, which is offline: start it on the source",
        source.id
    );
    wait::until(PATIENCE, "the job says what it waits for", async || {
        Ok(job.status_info().await?.doing.as_ref() == Some(&waiting))
    })
    .await?;
    has(&unfolded(&shell.says("job explain failing")?), &[&waiting])?;
    let sentence = [
        source.id.as_str(),
        "did not come for 8 seconds",
        "then start the job again; what was copied is kept",
    ];
    fails(&job, &shell, "SourceServer.Offline", &sentence).await?;
    let refused = shell.fails("job start failing")?;
    has(&refused, &["SourceServerState.Invalid"])?;

    source.agent.restart()?;
    usable(&source).await?;
    succeeds_now(&job, &shell).await
}

#[tokio::test]
async fn a_target_is_smaller_than_its_disk() -> anyhow::Result<()> {
    let cluster = cluster(&[]).await?;
    let tenant = cluster.tenant("alice").await?;
    let mut source = tenant.source(&cluster, "web", &[8 * MIB]).await?;
    // A disk that has become larger than the smallest target there is.
    source.agent.kill()?;
    let disk = File::options().write(true).open(&source.disks[0])?;
    disk.set_len((20 << 30) + 512)?;
    source.agent.restart()?;
    wait::until(PATIENCE, "the new size is known", async || {
        Ok(source.describe().await?.system_disk_size == Some(21))
    })
    .await?;
    usable(&source).await?;
    let shell = tenant.shell(&cluster)?;
    let refused = shell.fails("job create --source web --name first --system-disk-size 20")?;
    has(
        &unfolded(&refused),
        &[
            "InvalidSystemDiskSize",
            "has 21 GiB (21474836992 bytes), but 20 GiB were asked for: it must be 21 GiB or more",
            &source.disks[0].display().to_string(),
        ],
    )?;
    ensure!(
        shell.json("job list")? == Value::Array(Vec::new()),
        "a refused job leaves nothing"
    );
    has(
        &shell.says("job create --source web --name first --system-disk-size 21")?,
        &["is created"],
    )
}

/// The agent runs and reports no fault. A source whose job has failed is still that job's.
async fn usable(source: &Source) -> anyhow::Result<()> {
    let mut last = None;
    wait::until(PATIENCE, "the source can be used", async || {
        let shown = source.describe().await?;
        let is_there = shown.state == "Available" || shown.state == "InUse";
        let is_usable = is_there && shown.error_code.is_empty();
        last = Some(shown);
        Ok(is_usable)
    })
    .await
    .with_context(|| format!("last seen: {last:#?}"))
}

#[tokio::test]
async fn silent_agents_that_hold_every_place_keep_no_other_account_waiting_and_are_met_again()
-> anyhow::Result<()> {
    let cluster = cluster(&[
        ("WHERRY_WORKER_SLOTS", "2"),
        ("WHERRY_AGENT_PARK_SECS", "2"),
    ])
    .await?;
    let evil = cluster.tenant("evil").await?;
    let mut silent = Vec::new();
    for name in ["one", "two", "three"] {
        let mut source = evil.source(&cluster, name, &[MIB]).await?;
        source.agent.kill()?;
        let options = JobOptions::default();
        let job = source.create_job(&cluster, name, &options).await?;
        job.start().await?;
        silent.push((source, job));
    }
    let (source, right, _) = prepared(&cluster, &[4 * MIB], "").await?;
    right.start().await?;
    right.wait_for(PATIENCE, &["Finished"]).await?;
    right.check_image().await?;
    drop(source);

    let shell = evil.shell(&cluster)?;
    wait::until(PATIENCE, "it is said what is waited for", async || {
        let said = unfolded(&shell.says("job explain one")?);
        Ok(said.contains("waits without a worker") && said.contains("waiting for the agent of"))
    })
    .await?;
    let (source, job) = &mut silent[0];
    source.let_silence_be_long(&cluster).await?;
    source.agent.restart()?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}
