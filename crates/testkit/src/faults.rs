//! A workload of real processes under faults from a seed, and the invariants that must hold under every fault.
//!
//! The plan is a function of the seed. Its timing against the processes is not, since they are real: a seed that fails
//! once is run again until the failure is understood. The checks, by the numbers of the list that they come from:
//!
//! | | |
//! |---|---|
//! | I1 I2 I3 | one epoch moves a job at a time, epochs go up, a job ends once: the history, replayed |
//! | I4 I5 | every delivered disk is its source's, and its manifest is true: nothing that an old epoch wrote is in it |
//! | I6 | no tenant runs more than it may, and in the end no slot and no lease is left |
//! | I7 | every job that the API accepted finishes |
//! | I8 | every message is published |

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use loadtest::history::{self, Event, Expected};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster::{Cluster, ClusterConfig, Job, JobOptions, Source};
use crate::wait;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(150);

/// Processes that a fault can hit.
const WORKERS: usize = 2;
const SOURCES: usize = 4;

/// Faults of one plan. Leases that are lost three times without progress end a job for good, so workers are not hit
/// more often than twice.
const FAULTS: usize = 6;
const MOST_OF_WORKERS: usize = 2;

/// Seconds that a lease lives here, and that a paused worker sleeps.
const LEASE_SECS: u64 = 4;
const PAUSE: Duration = Duration::from_secs(LEASE_SECS + 3);

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An agent is killed and starts again.
    Agent(usize),
    /// The receiver of a job is killed, if it has one.
    Receiver(usize),
    /// A worker is killed and starts again.
    Worker(usize),
    /// A worker is paused for longer than its leases live.
    Pause(usize),
    /// The scheduler is killed and starts again.
    Scheduler,
    /// The gateway is killed and starts again.
    Gateway,
    /// NATS is killed, and comes back without its streams.
    Nats,
}

/// The faults of a run, and the seed that gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Seed that the plan is made from.
    pub seed: u64,
    /// The faults in their order, each with the delay before it.
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut faults = Vec::new();
        let mut of_workers = 0;
        while faults.len() < FAULTS {
            let gap = Duration::from_millis(random.random_range(100..1500));
            let fault = match random.random_range(0..8) {
                0 => Fault::Agent(random.random_range(0..SOURCES)),
                1 | 2 => Fault::Receiver(random.random_range(0..SOURCES)),
                3 => Fault::Worker(random.random_range(0..WORKERS)),
                4 => Fault::Pause(random.random_range(0..WORKERS)),
                5 => Fault::Scheduler,
                6 => Fault::Gateway,
                _ => Fault::Nats,
            };
            if matches!(fault, Fault::Worker(_) | Fault::Pause(_)) {
                if of_workers == MOST_OF_WORKERS {
                    continue;
                }
                of_workers += 1;
            }
            faults.push((gap, fault));
        }
        Self { seed, faults }
    }
}

/// Runs the workload under the plan of a seed.
///
/// # Errors
/// The first thing that does not hold, with the seed that shows it.
pub async fn survives(binary: &Path, seed: u64) -> anyhow::Result<()> {
    let plan = Plan::new(seed);
    println!("{plan:?}");
    Box::pin(run(binary, &plan))
        .await
        .with_context(|| format!("WHERRY_SEED={seed} runs it again: {plan:#?}"))
}

async fn run(binary: &Path, plan: &Plan) -> anyhow::Result<()> {
    let renewals = [
        ("WHERRY_LEASE_TTL_SECS", LEASE_SECS),
        ("WHERRY_LEASE_RENEWAL_SECS", 1),
        ("WHERRY_LEASE_MARGIN_SECS", 1),
        ("WHERRY_RECONNECT_MAX_SECS", 2),
    ];
    let mut cluster = Cluster::start(ClusterConfig {
        binary: binary.to_owned(),
        workers: WORKERS,
        environment: renewals
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .to_vec(),
    })
    .await?;
    let (mut sources, jobs, expected) = workload(&cluster).await?;
    for (gap, fault) in &plan.faults {
        tokio::time::sleep(*gap).await;
        inject(&mut cluster, &mut sources, &jobs, *fault)
            .await
            .with_context(|| format!("inject {fault:?}"))?;
    }
    for job in &jobs {
        job.wait_for(PATIENCE, &["Finished"]).await?;
        job.check_image().await?;
    }
    check_manifests(&cluster, &jobs).await?;
    check_history(&cluster, &expected).await?;
    wait::until(PATIENCE, "no slot, lease or message is left", async || {
        let left = cluster.slots().await? + cluster.leases().await? + cluster.unpublished().await?;
        Ok(left == 0)
    })
    .await
}

/// Two tenants with two sources each; one tenant may run one job at a time.
async fn workload(cluster: &Cluster) -> anyhow::Result<(Vec<Source>, Vec<Job>, Expected)> {
    let mut expected = Expected::default();
    let (mut sources, mut jobs) = (Vec::new(), Vec::new());
    for (name, limit) in [("alice", 2), ("bob", 1)] {
        let tenant = cluster.tenant(name).await?;
        let quotas = store::tenant::Quotas {
            max_running: limit,
            ..store::tenant::Quotas::default()
        };
        ensure!(cluster.store.set_quotas(&tenant.id, &quotas).await?);
        expected
            .running_limits
            .insert(name.to_owned(), usize::try_from(limit)?);
        for number in 0..SOURCES / 2 {
            let name = format!("{name}-{number}");
            let source = tenant
                .source(cluster, &name, &[40 * MIB, 9 * MIB + 512])
                .await?;
            let options = JobOptions {
                parameters: r#"{"bandwidth_limit":64000,"compress_level":0}"#.to_owned(),
                ..JobOptions::default()
            };
            let job = source.create_job(cluster, &name, &options).await?;
            job.start().await?;
            expected
                .source_of_job
                .insert(job.id.clone(), source.id.clone());
            sources.push(source);
            jobs.push(job);
        }
    }
    Ok((sources, jobs, expected))
}

async fn inject(
    cluster: &mut Cluster,
    sources: &mut [Source],
    jobs: &[Job],
    fault: Fault,
) -> anyhow::Result<()> {
    let worker = |number: usize| format!("worker-{}", number + 1);
    match fault {
        Fault::Agent(number) => {
            sources[number].agent.kill()?;
            sources[number].agent.restart()?;
        }
        Fault::Receiver(number) => {
            if let Some(receiver) = cluster.receiver_now(&jobs[number]).await? {
                let _ended_by_itself = kill(Pid::from_raw(receiver), Signal::SIGKILL);
            }
        }
        Fault::Worker(number) => cluster.kill_and_restart(&worker(number)).await?,
        Fault::Pause(number) => {
            cluster.role(&worker(number)).signal(Signal::SIGSTOP)?;
            tokio::time::sleep(PAUSE).await;
            cluster.role(&worker(number)).signal(Signal::SIGCONT)?;
        }
        Fault::Scheduler => cluster.kill_and_restart("scheduler").await?,
        Fault::Gateway => cluster.kill_and_restart("gateway").await?,
        Fault::Nats => cluster.wipe_nats().await?,
    }
    Ok(())
}

/// Every image agrees with its manifest, as its owner would check it.
async fn check_manifests(cluster: &Cluster, jobs: &[Job]) -> anyhow::Result<()> {
    for job in jobs {
        let image = job.describe().await?.image_id;
        let image = image.context("a job that finished has an image")?;
        job.shell(cluster)?.says(&format!("image verify {image}"))?;
    }
    Ok(())
}

/// The recorded history breaks no rule, replayed in its order.
async fn check_history(cluster: &Cluster, expected: &Expected) -> anyhow::Result<()> {
    let rows = cluster.store.history(0, 100_000, None).await?;
    let events: Vec<Event> = rows
        .into_iter()
        .map(|row| Event {
            seq: row.seq,
            time: row.at.as_datetime(),
            tenant: row.tenant,
            job_id: row.job_id,
            event: row.event.as_str().to_owned(),
            from: row.from.as_str().to_owned(),
            to: row.to.as_str().to_owned(),
            run: row.run.0.into(),
            epoch: row.epoch.0,
        })
        .collect();
    let broken = history::check(expected, &events);
    let sentences: BTreeMap<usize, String> =
        broken.iter().map(ToString::to_string).enumerate().collect();
    ensure!(broken.is_empty(), "{sentences:#?}\n{events:#?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_all_faults_come_up() {
        assert_eq!(Plan::new(7), Plan::new(7));
        let plans: Vec<Plan> = (0..100).map(Plan::new).collect();
        let any = |is: fn(&Fault) -> bool| {
            plans
                .iter()
                .flat_map(|plan| &plan.faults)
                .any(|(_, fault)| is(fault))
        };
        assert!(any(|fault| matches!(fault, Fault::Agent(_))));
        assert!(any(|fault| matches!(fault, Fault::Receiver(_))));
        assert!(any(|fault| matches!(fault, Fault::Worker(_))));
        assert!(any(|fault| matches!(fault, Fault::Pause(_))));
        assert!(any(|fault| *fault == Fault::Scheduler));
        assert!(any(|fault| *fault == Fault::Gateway));
        assert!(any(|fault| *fault == Fault::Nats));
        for plan in &plans {
            let of_workers = plan
                .faults
                .iter()
                .filter(|(_, fault)| matches!(fault, Fault::Worker(_) | Fault::Pause(_)));
            assert!(of_workers.count() <= MOST_OF_WORKERS, "{plan:?}");
        }
    }
}
