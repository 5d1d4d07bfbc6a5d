//! `kill -9` of every process in turn, in the middle of a copy: each job still finishes with the right bytes, and sends
//! little of them twice.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use domain::Clock as _;
use domain::job::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cluster::{Cluster, ClusterConfig, Job, JobOptions, Source};
use testkit::{program, wait};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(150);

/// 80 Mbit/s: a copy takes long enough to be hit in the middle. Without compression the wire carries what the disks
/// hold.
const SLOWLY: &str = r#"{"bandwidth_limit":80000,"compress_level":0}"#;

/// A copy is killed after this many bytes were sent: more than [`SENT_TWICE`], so that a copy that starts over is found
/// out.
const SENT_BEFORE: u64 = 96 * MIB;

/// Cost of one kill, at most: a flush window.
const SENT_TWICE: u64 = 64 * MIB;

/// Bytes sent between the worker's last sample and the kill are not in the count: up to this many in a second, at 80
/// Mbit/s.
const SENT_IN_A_SECOND: u64 = 10_000_000;

/// Seconds that a kill hides from the worker, and those for which a worker that is paused, or without Postgres, lets
/// its receiver live.
const KILLED: u64 = 2;
const PAUSED: u64 = 12;

/// Leases that run out fast, so that a killed worker's job is taken over within the test's patience.
async fn cluster(workers: usize) -> anyhow::Result<Cluster> {
    let environment = [
        ("WHERRY_LEASE_TTL_SECS", "4"),
        ("WHERRY_LEASE_RENEWAL_SECS", "1"),
        ("WHERRY_LEASE_MARGIN_SECS", "1"),
        ("WHERRY_RECEIVER_TIMEOUT_SECS", "5"),
        ("WHERRY_RECEIVER_SILENCE_SECS", "6"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers,
        environment,
    })
    .await
}

fn slowly() -> JobOptions {
    JobOptions {
        parameters: SLOWLY.to_owned(),
        ..JobOptions::default()
    }
}

/// A cluster with a job in the middle of its copy.
async fn copying(workers: usize) -> anyhow::Result<(Cluster, Source, Job)> {
    let cluster = cluster(workers).await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant
        .source(&cluster, "victim", &[160 * MIB, 24 * MIB])
        .await?;
    // Disks that were written a moment ago are not tracked.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let job = source.create_job(&cluster, "survivor", &slowly()).await?;
    job.start().await?;
    job.wait_for_wire(PATIENCE, SENT_BEFORE).await?;
    Ok((cluster, source, job))
}

/// The job delivers the source's bytes. The `kills` that hit it have made it send no more than a flush window each a
/// second time. `unseen` are the seconds of each kill in which sent bytes were not counted.
async fn finishes_right(job: &Job, kills: u64, unseen: u64) -> anyhow::Result<()> {
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let (needed, sent) = (job.bytes_needed()?, job.status_info().await?.bytes_wire);
    let sent = sent.context("StatusInfo says what was sent")?;
    println!("{}: needed {needed}, sent {sent}, kills {kills}", job.id);
    ensure!(
        sent + kills * unseen * SENT_IN_A_SECOND >= needed,
        "{sent} bytes crossed the wire, the disks hold {needed}: the count is wrong"
    );
    ensure!(
        sent <= needed + kills.max(1) * SENT_TWICE,
        "{sent} bytes crossed the wire, the disks hold {needed}: {kills} kills may cost {SENT_TWICE} each"
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_agent_goes_on_where_it_was() -> anyhow::Result<()> {
    let (_cluster, mut source, job) = copying(1).await?;
    source.agent.kill()?;
    source.agent.restart()?;
    finishes_right(&job, 1, KILLED).await?;
    // The disks have not been written meanwhile: the agent has not read again what it had read and sent.
    let (needed, read) = (job.bytes_needed()?, source.agent.bytes_read()?);
    ensure!(
        read <= needed - SENT_BEFORE + SENT_TWICE,
        "{read} bytes were read again of disks that hold {needed}, after {SENT_BEFORE} were sent"
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_receiver_is_replaced_and_goes_on() -> anyhow::Result<()> {
    let (cluster, _source, job) = copying(1).await?;
    kill_receiver(&cluster, &job).await?;
    finishes_right(&job, 1, KILLED).await
}

#[tokio::test]
async fn a_killed_worker_is_replaced_by_another() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(2).await?;
    let holder = cluster.worker_of(&job).await?;
    cluster.role(&holder).kill()?;
    finishes_right(&job, 1, KILLED).await?;
    let lost = events(&cluster, &job, Event::LeaseLost).await?;
    ensure!(lost == 1, "one lease was lost, and {lost} are written down");
    Ok(())
}

#[tokio::test]
async fn a_paused_worker_changes_nothing_after_it_lost_its_lease() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(2).await?;
    let holder = cluster.worker_of(&job).await?;
    cluster.role(&holder).signal(Signal::SIGSTOP)?;
    let epoch = epoch_of(&cluster, &job).await?;
    wait::until(PATIENCE, "another worker holds the lease", async || {
        Ok(epoch_of(&cluster, &job).await? > epoch)
    })
    .await?;
    cluster.role(&holder).signal(Signal::SIGCONT)?;
    finishes_right(&job, 1, PAUSED).await?;
    // Whatever the first one tried when it went on, no row has its epoch after the lease was lost.
    let history = job.history(&cluster).await?;
    let lost = history
        .iter()
        .position(|event| event.event == Event::LeaseLost)
        .context("the lease was lost")?;
    ensure!(
        history[lost + 1..].iter().all(|event| event.epoch > epoch),
        "a lost epoch wrote: {history:#?}"
    );
    ensure!(
        events(&cluster, &job, Event::Finish).await? == 1,
        "it finished more than once: {history:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_worker_that_was_paused_alone_claims_anew_before_it_goes_on() -> anyhow::Result<()> {
    let (mut cluster, _source, job) = copying(1).await?;
    let epoch = epoch_of(&cluster, &job).await?;
    cluster.role("worker-1").signal(Signal::SIGSTOP)?;
    wait::until(PATIENCE, "the lease is lost", async || {
        Ok(events(&cluster, &job, Event::LeaseLost).await? == 1)
    })
    .await?;
    cluster.role("worker-1").signal(Signal::SIGCONT)?;
    finishes_right(&job, 1, PAUSED).await?;
    let history = job.history(&cluster).await?;
    let finish = history.last().context("a history")?;
    ensure!(
        finish.event == Event::Finish && finish.epoch > epoch,
        "it finished under the epoch that it had lost: {history:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_worker_that_lost_postgres_ends_its_receiver_before_another_could_start_one()
-> anyhow::Result<()> {
    let (cluster, _source, job) = copying(1).await?;
    let receiver = cluster.receiver_of(&job).await?;
    let postgres = cluster.postgres.pid().context("Postgres runs")?;
    let processes = program::family(i32::try_from(postgres)?);
    let paused = Instant::now();
    for &process in &processes {
        kill(Pid::from_raw(process), Signal::SIGSTOP)?;
    }
    let gone = wait::until(PATIENCE, "the receiver is ended", async || {
        Ok(program::is_gone(receiver))
    })
    .await;
    let took = paused.elapsed();
    for &process in &processes {
        kill(Pid::from_raw(process), Signal::SIGCONT)?;
    }
    gone?;
    ensure!(
        took < Duration::from_secs(4),
        "the receiver lived {took:?} without Postgres, and the lease lives 4 s"
    );
    finishes_right(&job, 1, PAUSED).await
}

#[tokio::test]
async fn a_worker_whose_receiver_is_silent_stays_the_owner_and_replaces_it() -> anyhow::Result<()> {
    let (cluster, _source, job) = copying(1).await?;
    let receiver = cluster.receiver_of(&job).await?;
    kill(Pid::from_raw(receiver), Signal::SIGSTOP)?;
    wait::until(PATIENCE, "the receiver is replaced", async || {
        Ok(program::is_gone(receiver))
    })
    .await?;
    finishes_right(&job, 1, PAUSED).await?;
    ensure!(
        events(&cluster, &job, Event::LeaseLost).await? == 0,
        "the worker has kept its lease"
    );
    Ok(())
}

/// Two tenants, all five roles killed in turn while several jobs of many disks are copied, and while others are about
/// to start.
#[tokio::test]
async fn every_role_killed_in_turn_and_every_job_delivers() -> anyhow::Result<()> {
    let mut cluster = cluster(2).await?;
    let (alice, bob) = (cluster.tenant("alice").await?, cluster.tenant("bob").await?);
    let one_at_a_time = store::tenant::Quotas {
        max_running: 1,
        ..store::tenant::Quotas::default()
    };
    ensure!(cluster.store.set_quotas(&bob.id, &one_at_a_time).await?);
    let mut web = alice
        .source(&cluster, "web", &[160 * MIB, 48 * MIB + 512])
        .await?;
    let db = alice
        .source(&cluster, "db", &[120 * MIB, 72 * MIB, MIB / 2])
        .await?;
    let mail = bob.source(&cluster, "mail", &[144 * MIB, 40 * MIB]).await?;
    let mut running = Vec::new();
    for source in [&web, &db, &mail] {
        let job = source
            .create_job(&cluster, &format!("of-{}", source.id), &slowly())
            .await?;
        job.start().await?;
        running.push(job);
    }
    // The jobs that wait: one in bob's queue, one with a timer, one that is started while the outbox is not published,
    // one while the gateway falls.
    let small = [12 * MIB, 4 * MIB];
    let queued_source = bob.source(&cluster, "queued", &small).await?;
    let queued = queued_source
        .create_job(&cluster, "queued", &JobOptions::default())
        .await?;
    queued.start().await?;
    let timed_source = alice.source(&cluster, "timed", &small).await?;
    let tomorrow = domain::clock::SystemClock.now() + Duration::from_secs(24 * 3600);
    let on_time = JobOptions {
        scheduled_start: Some(tomorrow),
        ..JobOptions::default()
    };
    let timed = timed_source.create_job(&cluster, "timed", &on_time).await?;
    let unpublished_source = alice.source(&cluster, "unpublished", &small).await?;
    let unpublished = unpublished_source
        .create_job(&cluster, "unpublished", &JobOptions::default())
        .await?;
    let accepted_source = alice.source(&cluster, "accepted", &small).await?;
    let accepted = accepted_source
        .create_job(&cluster, "accepted", &JobOptions::default())
        .await?;
    for job in &running {
        job.wait_for_wire(PATIENCE, SENT_BEFORE).await?;
    }

    web.agent.kill()?;
    web.agent.restart()?;
    kill_receiver(&cluster, &running[1]).await?;

    cluster.role("scheduler").kill()?;
    unpublished.start().await?;
    timed.let_timer_be_due(&cluster, "start").await?;
    let shown = queued.describe().await?;
    ensure!(
        shown.business_status.as_deref() == Some("Preparing")
            && queued.status_info().await?.queue_position == Some(1),
        "bob's second job waits for his first: {shown:#?}"
    );
    ensure!(
        unpublished.status_info().await?.queue_position.is_some(),
        "nobody has given a slot yet"
    );
    ensure!(
        timed.describe().await?.status == "Ready",
        "nobody has looked at the timer yet"
    );
    cluster.role("scheduler").restart()?;

    accepted.start().await?;
    cluster.kill_and_restart("gateway").await?;

    let holder = cluster.worker_of(&running[2]).await?;
    cluster.role(&holder).kill()?;
    cluster.role(&holder).restart()?;

    let mut kills = Vec::new();
    for job in &running {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        kills.push(1 + events(&cluster, job, Event::LeaseLost).await? as u64);
    }
    for (job, kills) in running.iter().zip(kills) {
        finishes_right(job, kills, KILLED).await?;
    }
    for job in [&queued, &timed, &unpublished, &accepted] {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        job.check_image().await?;
    }
    let left = std::fs::read_dir(cluster.path("worker/instances"))?.count();
    ensure!(left == 0, "{left} instances are left");
    Ok(())
}

#[tokio::test]
async fn a_job_started_while_nats_is_wiped_still_runs() -> anyhow::Result<()> {
    let mut cluster = cluster(1).await?;
    let tenant = cluster.tenant("bob").await?;
    let early_source = tenant.source(&cluster, "early", &[64 * MIB]).await?;
    let early = early_source
        .create_job(&cluster, "early", &slowly())
        .await?;
    early.start().await?;
    early.wait_for_wire(PATIENCE, 8 * MIB).await?;
    cluster.wipe_nats().await?;
    let source = tenant.source(&cluster, "late", &[24 * MIB]).await?;
    let late = source
        .create_job(&cluster, "after-the-wipe", &JobOptions::default())
        .await?;
    late.start().await?;
    for job in [&late, &early] {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        job.check_image().await?;
    }
    Ok(())
}

async fn kill_receiver(cluster: &Cluster, job: &Job) -> anyhow::Result<()> {
    let receiver = cluster.receiver_of(job).await?;
    kill(Pid::from_raw(receiver), Signal::SIGKILL).context("kill the receiver")
}

async fn epoch_of(cluster: &Cluster, job: &Job) -> anyhow::Result<domain::Epoch> {
    let history = job.history(cluster).await?;
    history
        .iter()
        .map(|event| event.epoch)
        .max()
        .context("the job has a history")
}

/// Number of times that the event happened to the job.
async fn events(cluster: &Cluster, job: &Job, event: Event) -> anyhow::Result<usize> {
    let history = job.history(cluster).await?;
    Ok(history.iter().filter(|row| row.event == event).count())
}
