//! The operator's view: every expression of the dashboards against live metrics, and one trace from the API call to the
//! receiver.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use domain::Clock as _;
use domain::job::Event;
use nix::sys::signal::Signal;
use smc::model::StopReplicationJob;
use testkit::cluster::{Cluster, ClusterConfig, JobOptions, SmallStore, Tenant};
use testkit::expressions::{self, Expression, Shown};
use testkit::traces::{self, Collector};
use testkit::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// 80 Mbit/s, without compression: slow enough for a fault in the middle.
const SLOWLY: &str = r#"{"bandwidth_limit":80000,"compress_level":0}"#;

/// Parts of expressions that the workload does not bring about, and why.
const NOT_IN_THE_WORKLOAD: [(&str, &str); 6] = [
    (
        "InternalError|ServiceUnavailable",
        "codes of an answer that a gateway gives when it fails",
    ),
    (
        "wherry_agent_calls_deferred_total",
        "an agent has to call more often than it may",
    ),
    (
        "wherry_connections_ended_total",
        "a connection has to be silent, slow or idle, or one too many",
    ),
    (
        "wherry_job_events_ignored_total",
        "an event is late or repeated only when a process falls between two statements",
    ),
    (
        "wherry_reconciler_repairs_total",
        "a message has to be lost; kills.rs loses all of them",
    ),
    (
        "wherry_task_failures_total",
        "a background task has to fail",
    ),
];

#[tokio::test]
async fn dashboards_and_traces_show_migrations() -> anyhow::Result<()> {
    let collector = Collector::default();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.start().await?),
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
    let tenant = cluster.tenant("alice").await?;
    migrate_on_time(&cluster, &tenant).await?;
    fill_the_disk(&cluster, &tenant).await?;
    lose_a_lease(&mut cluster, &tenant).await?;

    wait::until(
        PATIENCE,
        "a trace leads from call to receiver",
        async || Ok(traces::way_of_a_start(&collector.spans()).is_some()),
    )
    .await
    .with_context(|| format!("spans seen: {:#?}", collector.spans()))?;

    // Some is measured only now and then: all of it has to be measured once.
    let mut unanswered = None;
    let waited = wait::until(PATIENCE, "every expression is answered", async || {
        unanswered = first_unanswered(&shown(&cluster).await?)?;
        Ok(unanswered.is_none())
    })
    .await;
    if let Some(error) = unanswered {
        return Err(error);
    }
    waited?;
    nothing_strange(&shown(&cluster).await?)
}

/// A job that starts by its timer and delivers; and a call that is refused.
async fn migrate_on_time(cluster: &Cluster, tenant: &Tenant) -> anyhow::Result<()> {
    let source = tenant.source(cluster, "timed", &[24 * MIB]).await?;
    let tomorrow = domain::clock::SystemClock.now() + Duration::from_secs(24 * 3600);
    let options = JobOptions {
        scheduled_start: Some(tomorrow),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, "timed", &options).await?;
    let early = job.call(|job_id| StopReplicationJob { job_id }).await;
    ensure!(early.is_err(), "a job that does not run can't be stopped");
    job.let_timer_be_due(cluster, "start").await?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}

/// A job whose receiver has too little room.
async fn fill_the_disk(cluster: &Cluster, tenant: &Tenant) -> anyhow::Result<()> {
    let source = tenant.source(cluster, "large", &[64 * MIB]).await?;
    let slowly = JobOptions {
        parameters: SLOWLY.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, "large", &slowly).await?;
    let room = SmallStore::over(&cluster.path("worker/instances"), 256 * MIB)?;
    job.start().await?;
    job.wait_for_bytes(PATIENCE, 4 * MIB).await?;
    room.fill(0)?;
    wait::until(PATIENCE, "the job fails", async || {
        Ok(job.describe().await?.status == "InError")
    })
    .await
}

/// A job whose worker is paused until its lease is lost.
async fn lose_a_lease(cluster: &mut Cluster, tenant: &Tenant) -> anyhow::Result<()> {
    let source = tenant.source(cluster, "slow", &[48 * MIB]).await?;
    let options = JobOptions {
        parameters: SLOWLY.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, "slow", &options).await?;
    job.start().await?;
    job.wait_for_wire(PATIENCE, 8 * MIB).await?;
    cluster.role("worker-1").signal(Signal::SIGSTOP)?;
    wait::until(PATIENCE, "the lease is lost", async || {
        let history = job.history(cluster).await?;
        Ok(history.iter().any(|row| row.event == Event::LeaseLost))
    })
    .await?;
    cluster.role("worker-1").signal(Signal::SIGCONT)?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await
}

/// Metrics of all roles together.
async fn shown(cluster: &Cluster) -> anyhow::Result<Shown> {
    let mut all = Shown::new();
    for role in ["gateway", "scheduler", "worker-1"] {
        for (name, labels) in expressions::shown_by(&cluster.metrics(role).await?) {
            let together = all.entry(name).or_default();
            for (label, values) in labels {
                together.entry(label).or_default().extend(values);
            }
        }
    }
    Ok(all)
}

/// The first expression of a dashboard that queries a metric that no role exports. A metric that the workload does not
/// cause must at least be promised.
fn first_unanswered(live: &Shown) -> anyhow::Result<Option<anyhow::Error>> {
    let promised = expressions::promised();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let asked = expressions::of_dashboards(&deploy.join("grafana/dashboards"))?;
    for (part, _) in NOT_IN_THE_WORKLOAD {
        ensure!(
            asked.iter().any(|asked| asked.promql.contains(part)),
            "{part} is excepted, and no dashboard asks for it"
        );
    }
    let is_excepted = |asked: &Expression| {
        NOT_IN_THE_WORKLOAD
            .iter()
            .any(|(part, _)| asked.promql.contains(part))
    };
    for asked in &asked {
        if is_excepted(asked) {
            expressions::check(asked, &promised)?;
        } else if let Err(error) = expressions::check(asked, live) {
            return Ok(Some(error));
        }
    }
    Ok(None)
}

/// No role exports a metric or a label that the program's list does not have.
fn nothing_strange(live: &Shown) -> anyhow::Result<()> {
    let promised = expressions::promised();
    for (name, labels) in live {
        let known = promised
            .get(name)
            .with_context(|| format!("{name} is shown but not in the list of metrics"))?;
        let strange: Vec<&String> = labels
            .keys()
            .filter(|label| !known.contains_key(*label) && *label != "le")
            .collect();
        ensure!(
            strange.is_empty(),
            "{name} is shown with labels that the list does not have: {strange:?}"
        );
    }
    Ok(())
}
