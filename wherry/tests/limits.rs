//! A job's limit and transport, with real processes, as a user sets and sees them.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::cluster::{Cluster, ClusterConfig, Job, JobOptions, REGION, Tenant};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Without compression the wire carries what the disk holds.
const PLAIN: &str = r#"{"compress_level":0}"#;
const SLOW: &str = r#"{"bandwidth_limit":64000,"compress_level":0}"#;
const SLOW_BYTES_PER_SEC: f64 = 8e6;
const FAST_BYTES_PER_SEC: f64 = 20e6;

async fn cluster() -> anyhow::Result<Cluster> {
    cluster_with(&[]).await
}

/// A cluster whose roles and agents have these settings.
async fn cluster_with(environment: &[(&str, &str)]) -> anyhow::Result<Cluster> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Cluster::start(ClusterConfig {
        binary: PathBuf::from(WHERRY),
        workers: 1,
        environment: environment.collect(),
    })
    .await
}

fn options(parameters: &str) -> JobOptions {
    JobOptions {
        parameters: parameters.to_owned(),
        ..JobOptions::default()
    }
}

/// `wherry job modify` with the tenant's key.
fn modify(cluster: &Cluster, tenant: &Tenant, line: &str) -> anyhow::Result<String> {
    let output = Command::new(WHERRY)
        .args(["job", "modify"])
        .args(line.split(' '))
        .env("HOME", cluster.path(""))
        .env("WHERRY_ENDPOINT", cluster.endpoint())
        .env("WHERRY_ACCESS_KEY_ID", &tenant.key.id)
        .env("WHERRY_ACCESS_KEY_SECRET", &tenant.key.secret)
        .env("WHERRY_REGION_ID", REGION)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "wherry job modify {line}: {complaint}"
    );
    Ok(said)
}

/// The moments at which the bytes on the wire were seen to change, for so long.
async fn watch_wire(job: &Job, lasts: Duration) -> anyhow::Result<Vec<(Instant, u64)>> {
    let began = Instant::now();
    let mut seen: Vec<(Instant, u64)> = Vec::new();
    while began.elapsed() < lasts {
        let bytes = job.status_info().await?.bytes_wire.unwrap_or(0);
        if seen.last().is_none_or(|(_, last)| *last != bytes) {
            seen.push((Instant::now(), bytes));
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    // Bytes that were there when the watch began were seen late.
    seen.remove(0);
    Ok(seen)
}

fn rate(from: (Instant, u64), to: (Instant, u64)) -> f64 {
    (to.1 - from.1) as f64 / to.0.duration_since(from.0).as_secs_f64()
}

/// The rate over all of the watch is within 10 %, and over no two seconds of it is there a dip.
fn holds(seen: &[(Instant, u64)], wanted: f64) -> anyhow::Result<()> {
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        anyhow::bail!("nothing was sent")
    };
    let measured = rate(*first, *last);
    ensure!(
        (measured - wanted).abs() <= wanted / 10.0,
        "{measured:.0} bytes a second, {wanted:.0} were asked for: {seen:?}"
    );
    no_dip(seen, wanted)
}

fn no_dip(seen: &[(Instant, u64)], lowest: f64) -> anyhow::Result<()> {
    for (place, from) in seen.iter().enumerate() {
        let later = seen[place..]
            .iter()
            .find(|to| to.0.duration_since(from.0) >= Duration::from_secs(2));
        if let Some(to) = later {
            let measured = rate(*from, *to);
            ensure!(measured >= lowest * 0.8, "a dip to {measured:.0}: {seen:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_that_is_raised_in_a_run_is_kept_to_at_once_and_costs_no_connection()
-> anyhow::Result<()> {
    let cluster = cluster().await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(&cluster, "web", &[384 * MIB]).await?;
    let job = source
        .create_job(&cluster, "raised", &options(SLOW))
        .await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 4 * MIB).await?;
    let slow = watch_wire(&job, Duration::from_secs(7)).await?;
    holds(&slow, SLOW_BYTES_PER_SEC)?;

    let said = modify(
        &cluster,
        &tenant,
        "raised --bandwidth-limit 160mbit --description quicker",
    )?;
    ensure!(said.contains("is changed"), "{said}");
    let between = watch_wire(&job, Duration::from_secs(4)).await?;
    no_dip(&between, SLOW_BYTES_PER_SEC)?;
    let fast = watch_wire(&job, Duration::from_secs(6)).await?;
    holds(&fast, FAST_BYTES_PER_SEC)?;

    let refused = modify(&cluster, &tenant, "raised --compress-level 9");
    ensure!(
        refused.is_err_and(|error| error.to_string().contains("following status: Ready")),
        "a run does not take up another level"
    );
    let info = job.status_info().await?;
    let transport = (info.transport.as_deref(), info.transport_reason.as_deref());
    ensure!(
        transport == (Some("quic"), Some("the default")),
        "both transports answer and little is to be sent: {transport:?}"
    );

    modify(&cluster, &tenant, "raised --bandwidth-limit none")?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let log = source.agent.log();
    ensure!(
        log.matches("sending begins").count() == 1 && !log.contains("sending broke off"),
        "one connection has carried all of it:\n{log}"
    );
    Ok(())
}

#[tokio::test]
async fn an_agent_sends_no_more_than_its_own_limit() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let tenant = cluster.tenant("alice").await?;
    let mut source = tenant.source(&cluster, "web", &[96 * MIB]).await?;
    source.agent.stop().await?;
    source.agent.add_arguments(&["--bandwidth-limit", "64mbit"]);
    source.agent.restart()?;
    let job = source.create_job(&cluster, "own", &options(PLAIN)).await?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 4 * MIB).await?;
    let seen = watch_wire(&job, Duration::from_secs(6)).await?;
    holds(&seen, SLOW_BYTES_PER_SEC)?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}

#[tokio::test]
async fn the_runs_of_a_worker_share_its_limit() -> anyhow::Result<()> {
    // Each agent may send as much, so nothing but the worker's share keeps two of them to half of it. Half of it is
    // still many chunks in the second between two samples.
    let cluster = cluster_with(&[("WHERRY_BANDWIDTH_LIMIT", "128mbit")]).await?;
    let tenant = cluster.tenant("alice").await?;
    let first = tenant.source(&cluster, "first", &[144 * MIB]).await?;
    let second = tenant.source(&cluster, "second", &[144 * MIB]).await?;
    let jobs = (
        first.create_job(&cluster, "one", &options(PLAIN)).await?,
        second.create_job(&cluster, "two", &options(PLAIN)).await?,
    );
    for job in [&jobs.0, &jobs.1] {
        job.start().await?;
    }
    for job in [&jobs.0, &jobs.1] {
        job.wait_for_bytes(PATIENCE, 4 * MIB).await?;
    }
    // A share changes within two seconds of the moment when the other run begins to copy.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lasts = Duration::from_secs(7);
    let seen = tokio::try_join!(watch_wire(&jobs.0, lasts), watch_wire(&jobs.1, lasts))?;
    for seen in [&seen.0, &seen.1] {
        holds(seen, SLOW_BYTES_PER_SEC)?;
    }
    for job in [&jobs.0, &jobs.1] {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        job.check_image().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_tunnel_is_tls_over_tcp_and_status_info_says_so() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(&cluster, "web", &[24 * MIB]).await?;
    let asked = options(r#"{"use_ssh_tunnel":true,"efficiency_level":3}"#);
    let job = source.create_job(&cluster, "tunnel", &asked).await?;
    job.start().await?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    let info = job.status_info().await?;
    let transport = (info.transport.as_deref(), info.transport_reason.as_deref());
    ensure!(
        transport == (Some("tcp"), Some("asked for")),
        "{transport:?}"
    );
    Ok(())
}
