//! Faults around a run that must not be taken for its end, and faults that must. They are: a slow and a restarting
//! database, a receiver that crashes again and again, a disk that rots or is gone, a message that no process can read.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bus::{Bus, BusConfig};
use serde_json::Value;
use testkit::cluster::{Cluster, ClusterConfig, Job, JobOptions, Source};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(150);

/// 160 Mbit/s: the copy takes long enough to be hit in the middle.
const SLOWLY: &str = r#"{"bandwidth_limit":160000,"compress_level":0,"checksum":true}"#;

async fn cluster(environment: &[(&str, &str)]) -> anyhow::Result<Cluster> {
    let environment = environment
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment,
    })
    .await
}

async fn job(cluster: &Cluster, sizes: &[u64]) -> anyhow::Result<(Source, Job)> {
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(cluster, "web", sizes).await?;
    let options = JobOptions {
        parameters: SLOWLY.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, "move", &options).await?;
    Ok((source, job))
}

/// The code and the sentence that a failed job shows.
async fn failure(job: &Job) -> anyhow::Result<(String, String)> {
    let shown = wait::some(PATIENCE, "the job is InError", async || {
        let shown = job.describe().await?;
        ensure!(shown.status != "Finished", "it finished: {shown:#?}");
        Ok((shown.status == "InError").then_some(shown))
    })
    .await?;
    Ok((shown.error_code, shown.status_info.unwrap_or_default()))
}

#[tokio::test]
async fn a_locked_row_and_a_postgres_that_restarts_in_each_phase_fail_no_run() -> anyhow::Result<()>
{
    let cluster = cluster(&[("WHERRY_STATEMENT_TIMEOUT_SECS", "1")]).await?;
    let (_source, job) = job(&cluster, &[96 * MIB]).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 16 * MIB).await?;
    // Three times as long as a statement may take.
    cluster.lock_jobs(Duration::from_secs(3)).await?;

    let mut seen = Vec::new();
    wait::until(PATIENCE, "the job has finished", async || {
        let Ok(shown) = job.describe().await else {
            return Ok(false);
        };
        ensure!(shown.status != "InError", "the job failed: {shown:#?}");
        let phase = shown.business_status.unwrap_or_default();
        if !phase.is_empty() && !seen.contains(&phase) {
            cluster.restart_postgres().await?;
            seen.push(phase);
        }
        Ok(shown.status == "Finished")
    })
    .await?;
    ensure!(seen.iter().any(|phase| phase == "Syncing"), "{seen:?}");
    job.check_image().await
}

#[tokio::test]
async fn a_role_without_its_database_or_its_queue_says_so_until_it_is_back() -> anyhow::Result<()> {
    let mut cluster = cluster(&[]).await?;
    let roles = ["gateway", "scheduler", "worker-1"];
    let paused = cluster.pause_postgres()?;
    says_that_it_lacks(&cluster, &roles, "postgres").await?;
    drop(paused);
    for role in roles {
        cluster.ready(role).await?;
    }
    let paused = cluster.pause_nats()?;
    says_that_it_lacks(&cluster, &roles[1..], "nats").await?;
    ensure!(
        cluster.readiness("gateway").await? == "ready\n",
        "calls are answered without a queue"
    );
    drop(paused);
    for role in roles {
        cluster.ready(role).await?;
    }
    Ok(())
}

async fn says_that_it_lacks(
    cluster: &Cluster,
    roles: &[&str],
    dependency: &str,
) -> anyhow::Result<()> {
    for role in roles {
        let missing = format!("{}.{dependency}", role.trim_end_matches("-1"));
        let said = wait::some(PATIENCE, "the role is not ready", async || {
            let said = cluster.readiness(role).await?;
            Ok(said.contains(&missing).then_some(said))
        });
        ensure!(said.await?.starts_with("not ready: "), "{role}");
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_crashes_again_and_again_ends_the_run() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir()?;
    let crashing = directory.path().join("crashing-receiver");
    let binary = env!("CARGO_BIN_EXE_wherry");
    std::fs::write(
        &crashing,
        format!("#!/bin/sh\n(sleep 2; kill -9 $$) &\nexec {binary} \"$@\"\n"),
    )?;
    std::fs::set_permissions(&crashing, std::fs::Permissions::from_mode(0o755))?;
    let program = crashing.display().to_string();
    let cluster = cluster(&[
        ("WHERRY_RECEIVER_PROGRAM", &program),
        ("WHERRY_RECEIVER_LOSSES", "1"),
    ])
    .await?;
    let (mut source, job) = job(&cluster, &[96 * MIB]).await?;
    // Without an agent nothing becomes durable.
    source.agent.kill()?;
    job.start().await?;
    let (code, sentence) = failure(&job).await?;
    ensure!(code == "ReplicationJob.ReceiverLost", "{code}: {sentence}");
    ensure!(sentence.contains("Tell the operator"), "{sentence}");
    Ok(())
}

#[tokio::test]
async fn what_rots_on_the_target_is_sent_again_and_a_target_that_goes_on_rotting_fails_the_run()
-> anyhow::Result<()> {
    let cluster = cluster(&[("WHERRY_CORRUPT_RESENDS", "1")]).await?;
    let (_source, job) = job(&cluster, &[64 * MIB]).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 16 * MIB).await?;
    let target = target_disk(&cluster)?;
    rot(&target)?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let receivers = cluster.metrics("worker-1").await?;
    ensure!(
        receivers
            .contains(r#"wherry_receiver_failures_total{code="ReplicationJob.DataCorrupt"} 1"#),
        "it was found once:\n{receivers}"
    );

    let bob = cluster.tenant("bob").await?;
    let source = bob.source(&cluster, "late", &[64 * MIB]).await?;
    let options = JobOptions {
        parameters: SLOWLY.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(&cluster, "rotten", &options).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 16 * MIB).await?;
    let target = target_disk(&cluster)?;
    let mut byte = [0];
    std::fs::File::open(&target)?.read_exact_at(&mut byte, ROTTEN_AT)?;
    // On a thread without pauses: between the repair of the chunk and its check lie few milliseconds. The thread never
    // writes the byte that was sent.
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let rotting = std::thread::spawn(move || {
        for wrong in [1, 2].into_iter().cycle() {
            if ends.load(Ordering::Relaxed) {
                return;
            }
            let _gone_with_the_run = write_byte(&target, byte[0].wrapping_add(wrong));
        }
    });
    let failed = failure(&job).await;
    is_over.store(true, Ordering::Relaxed);
    ensure!(rotting.join().is_ok(), "the thread ended by itself");
    let (code, sentence) = failed?;
    ensure!(code == "ReplicationJob.DataCorrupt", "{code}: {sentence}");
    Ok(())
}

/// The first disk of the only instance.
fn target_disk(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let mut disks = Vec::new();
    for entry in std::fs::read_dir(cluster.path("worker/instances"))? {
        let disk = entry?.path().join("disk-0.raw");
        if disk.exists() {
            disks.push(disk);
        }
    }
    ensure!(disks.len() == 1, "there must be one instance: {disks:?}");
    disks.pop().context("an instance")
}

/// Position of the byte that rots.
const ROTTEN_AT: u64 = 5 * MIB;

/// Changes one byte of the disk.
fn rot(disk: &std::path::Path) -> anyhow::Result<()> {
    let mut byte = [0];
    std::fs::File::open(disk)?.read_exact_at(&mut byte, ROTTEN_AT)?;
    write_byte(disk, byte[0].wrapping_add(1))
}

fn write_byte(disk: &std::path::Path, byte: u8) -> anyhow::Result<()> {
    let disk = std::fs::File::options().write(true).open(disk)?;
    Ok(disk.write_all_at(&[byte], ROTTEN_AT)?)
}

#[tokio::test]
async fn a_disk_that_is_gone_or_grew_since_the_job_was_made_fails_it_and_no_image_lacks_one()
-> anyhow::Result<()> {
    let cluster = cluster(&[]).await?;
    let (mut source, job) = job(&cluster, &[8 * MIB, 8 * MIB]).await?;
    source.agent.kill()?;
    cluster.forget_disk(&source.id, 1).await?;
    job.start().await?;
    let (code, sentence) = failure(&job).await?;
    ensure!(code == "SourceServer.DiskChanged", "{code}: {sentence}");
    ensure!(sentence.contains("no disk 1 any more"), "{sentence}");

    // It is back, and larger than the target.
    let grown = std::fs::File::options()
        .write(true)
        .open(&source.disks[1])?;
    grown.set_len(30 << 30)?;
    source.agent.restart()?;
    wait::until(PATIENCE, "the larger disk is known", async || {
        Ok(cluster.disk_bytes(&source.id, 1).await? == Some(30 << 30))
    })
    .await?;
    job.start().await?;
    let (code, sentence) = failure(&job).await?;
    ensure!(code == "SourceServer.DiskChanged", "{code}: {sentence}");
    ensure!(
        sentence.contains("has 32212254720 bytes and had 8388608"),
        "{sentence}"
    );
    Ok(())
}

#[tokio::test]
async fn nonsense_in_the_queue_is_shown_to_the_operator_and_can_be_sent_again() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("admin.sock");
    let socket = socket.display().to_string();
    let cluster = cluster(&[("WHERRY_ADMIN_SOCKET", &socket)]).await?;
    let admin = |line: &str| dead_letter(&socket, line);
    let nats = Bus::connect(&BusConfig::new(cluster.nats.url(), "test")).await?;
    let headers = [("Sent-By".to_owned(), "a later version".to_owned())].into();
    nats.send_again("wherry.cmd.start_run", b"nonsense", &headers)
        .await?;

    let listed = async |times: i64| {
        wait::some(
            PATIENCE,
            &format!("it has died {times} times"),
            async || {
                let letters = admin("list")?;
                Ok((letters[0]["Times"] == times).then_some(letters))
            },
        )
        .await
    };
    let letters = listed(1).await?;
    ensure!(
        letters.as_array().is_some_and(|all| all.len() == 1),
        "{letters}"
    );
    ensure!(letters[0]["Subject"] == "wherry.cmd.start_run", "{letters}");
    let id = letters[0]["Id"].as_str().context("an id")?.to_owned();
    let shown = admin(&format!("show {id}"))?;
    ensure!(shown["Payload"] == "nonsense", "{shown}");
    ensure!(shown["Headers"] == "Sent-By: a later version", "{shown}");

    admin(&format!("retry {id}"))?;
    let again = wait::some(PATIENCE, "it has died again", async || {
        let letters = admin("list")?;
        Ok((letters[0]["Id"].is_string() && letters[0]["Id"] != id.as_str()).then_some(letters))
    })
    .await?;
    let id = again[0]["Id"].as_str().context("an id")?;
    admin(&format!("delete {id}"))?;
    ensure!(admin("list")?.as_array().is_some_and(Vec::is_empty));

    // The queue was never in the way of anything.
    let (_source, job) = job(&cluster, &[4 * MIB]).await?;
    job.start().await?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}

/// Answers of `wherry admin dead-letter`.
fn dead_letter(socket: &str, line: &str) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["admin", "dead-letter"])
        .args(line.split(' '))
        .args(["--output", "json", "--socket", socket])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test]
async fn a_removal_that_always_fails_becomes_a_dead_letter_and_is_done_once_it_can_be()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("admin.sock").display().to_string();
    let cluster = cluster(&[
        ("WHERRY_ADMIN_SOCKET", &socket),
        ("WHERRY_WORKER_DELIVERIES", "1"),
        ("WHERRY_RECONCILE_SECS", "3600"),
    ])
    .await?;
    let (_source, job) = job(&cluster, &[4 * MIB]).await?;
    job.start().await?;
    let finished = job.wait_for(PATIENCE, &["Finished"]).await?;
    let id = finished.image_id.context("an image")?;
    // A file is in the place of the image's directory.
    let place = cluster.images().join(&id);
    std::fs::remove_dir_all(&place)?;
    std::fs::write(&place, b"in the way")?;
    let image = id.parse()?;
    let headers = domain::message::TraceHeaders::new();
    cluster
        .store
        .delete_image(&job.tenant, &image, &headers)
        .await?;

    let letter = wait::some(PATIENCE, "the command is a dead letter", async || {
        let letters = dead_letter(&socket, "list")?;
        Ok(letters[0]["Id"].is_string().then(|| letters[0].clone()))
    })
    .await?;
    let reason = letter["Reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("given out 1 times") && reason.contains(&id),
        "{reason}"
    );
    ensure!(cluster.store.image_is_to_go(&image).await?, "it waits");

    std::fs::remove_file(&place)?;
    let letter = letter["Id"].as_str().unwrap_or_default();
    dead_letter(&socket, &format!("retry {letter}"))?;
    wait::until(PATIENCE, "the image is gone", async || {
        Ok(!cluster.store.image_is_to_go(&image).await?)
    })
    .await
}
