//! `wherry loadtest jobs`: many real jobs at once.

mod disk;
mod load;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use smc::model::CreateAccessToken;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::deployment::{Deployment, Given};
use crate::figures::{Machine, Percentiles};
use crate::history::{self, Expected};
use load::{SharedLog, Source};
use report::Figures;
pub use report::{Report, Settings};

/// A line about how far it is goes to standard error this often.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Load of real jobs: their number, and the sources and disks that they copy.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(
    after_help = "Without --endpoint, it starts a `wherry up` of its own in a directory that goes at the end, and one agent process for each source.\n\n\
    Examples:\n  wherry loadtest jobs --tenants 2 --jobs 20 --running-limit 2\n  wherry loadtest jobs --tenants 4 --jobs 200 --running-limit 8 --disk-mib 64 --json >report.json\n\n\
    Exit code 0 when every limit held and every disk is right, 1 otherwise."
)]
pub struct Config {
    /// Tenants to make.
    #[arg(long, default_value_t = 2, value_parser = count)]
    pub tenants: usize,
    /// Jobs, of all tenants together.
    #[arg(long, default_value_t = 20, value_parser = count)]
    pub jobs: usize,
    /// Jobs that each tenant may run at once.
    #[arg(long, default_value_t = 2, value_parser = count)]
    pub running_limit: usize,
    /// Sources, of all tenants together; each does one job after the other. Without it, twice as many as may run at
    /// once, so that jobs queue.
    #[arg(long, value_parser = count)]
    pub sources: Option<usize>,
    /// Size of each source's disk, in MiB.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=20_480))]
    pub disk_mib: u64,
    /// Runs at once of the worker that it starts. Without it, the worker's default.
    #[arg(long, conflicts_with = "endpoint", value_parser = count)]
    pub slots: Option<usize>,
    /// Seconds after which it gives up; jobs that are not finished by then count as lost.
    #[arg(long, default_value_t = 1800)]
    pub timeout_secs: u64,
    /// Seed of the disks' contents.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Directory for disks, logs and its own Wherry. Without it, a new one under the system's directory for temporary
    /// files.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// Keep the work directory.
    #[arg(long)]
    pub keep: bool,
    /// API of a Wherry that runs already. Images that lie on this machine are compared, others are not.
    #[arg(long, requires_all = ["agent_endpoint", "admin_socket"])]
    pub endpoint: Option<String>,
    /// Address that agents call at that Wherry, as https://HOST:PORT.
    #[arg(long, requires = "endpoint")]
    pub agent_endpoint: Option<String>,
    /// Its gateway's socket for operators: tenants are made and the history is read there.
    #[arg(long, env = "WHERRY_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Its region.
    #[arg(long, default_value = "local")]
    pub region: String,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=100_000) => Ok(count),
        _ => Err("give a number from 1 to 100000".to_owned()),
    }
}

impl Config {
    /// The Wherry that runs already, if one was named.
    fn given(&self) -> Option<Given> {
        Some(Given {
            endpoint: self.endpoint.clone()?,
            agent_endpoint: self.agent_endpoint.clone()?,
            region: self.region.clone(),
            admin_socket: self.admin_socket.clone()?,
        })
    }

    fn sources(&self) -> usize {
        let wanted = self
            .sources
            .unwrap_or(2 * self.tenants * self.running_limit);
        // A tenant without a source, and a source without a job, would say nothing.
        wanted.max(self.tenants).min(self.jobs)
    }

    /// Jobs of the source with this number. The first sources take one more when the jobs do not divide evenly.
    fn jobs_of_source(&self, number: usize) -> usize {
        let sources = self.sources();
        self.jobs / sources + usize::from(number < self.jobs % sources)
    }

    /// Number of jobs of the tenant with this number. Sources belong to tenants in turn.
    fn jobs_of_tenant(&self, number: usize) -> usize {
        (number..self.sources())
            .step_by(self.tenants)
            .map(|source| self.jobs_of_source(source))
            .sum()
    }
}

/// Applies the load and reports. Faults under load are in the report; an error means that the load could not be
/// applied.
///
/// # Errors
/// Wherry or an agent does not start, or the history can't be read.
pub async fn run(config: Config) -> anyhow::Result<Report> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("wherry-loadtest-")
        .disable_cleanup(config.keep);
    let folder = match &config.work_dir {
        Some(parent) => {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("can't make {}", parent.display()))?;
            builder.tempdir_in(parent)
        }
        None => builder.tempdir(),
    }
    .context("can't make a directory to work in: choose one with --work-dir")?;
    if config.keep {
        eprintln!("working in {}", folder.path().display());
    }
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        report = measure(&config, folder.path()) => report,
        // Children die as they are dropped.
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("interrupted"),
    }
}

async fn measure(config: &Config, folder: &std::path::Path) -> anyhow::Result<Report> {
    let settings = Settings {
        tenants: config.tenants,
        jobs: config.jobs,
        running_limit: config.running_limit,
        sources: config.sources(),
        disk_mib: config.disk_mib,
    };
    eprintln!(
        "starting Wherry, {} tenants and {} agents",
        settings.tenants, settings.sources
    );
    let deployment = match config.given() {
        Some(given) => Deployment::given(given),
        None => Deployment::start(folder, &config.region, config.slots).await?,
    };
    let before = deployment.history(0).await?.last().map_or(0, |row| row.seq);
    let mut expected = Expected::default();
    let (sources, agents) = enrol(config, &deployment, folder, &mut expected).await?;

    eprintln!("starting {} jobs", settings.jobs);
    let log = SharedLog::default();
    let mut working = JoinSet::new();
    let one_of_each_tenant = sources[..settings.tenants.min(sources.len())].to_vec();
    for (number, source) in sources.into_iter().enumerate() {
        working.spawn(source.work(config.jobs_of_source(number), log.clone()));
    }
    let timeout = Duration::from_secs(config.timeout_secs);
    if tokio::time::timeout(timeout, finish(&mut working, &log, settings.jobs))
        .await
        .is_err()
    {
        working.shutdown().await;
        log.write(|log| {
            log.faults
                .push(format!("it was not over after {} s", timeout.as_secs()))
        });
    }
    // With less jobs than the tenants may have, one more would be right.
    if log.write(|log| log.faults.is_empty()) {
        for (number, source) in one_of_each_tenant.iter().enumerate() {
            let limit = config.jobs_of_tenant(number);
            if let Err(error) = source.one_too_many(limit, &log).await {
                log.write(|log| log.faults.push(format!("tenant {}: {error:#}", number + 1)));
            }
        }
    }

    let history = deployment.history(before).await?;
    drop(agents);
    deployment.end().await;
    let log = log.write(std::mem::take);
    expected.source_of_job = log.accepted.iter().cloned().collect();
    let ours: Vec<history::Event> = history
        .into_iter()
        .filter(|row| expected.running_limits.contains_key(&row.tenant))
        .collect();
    let figures = Figures::of(&ours);
    let mut faults = log.faults;
    faults.extend(
        history::check(&expected, &ours)
            .iter()
            .map(ToString::to_string),
    );
    if log.accepted.len() != settings.jobs {
        faults.push(format!(
            "{} jobs were asked for, {} were created",
            settings.jobs,
            log.accepted.len()
        ));
    }
    Ok(Report {
        settings,
        machine: Machine::this(),
        jobs_created: log.accepted.len(),
        jobs_finished: figures.finished,
        images_compared: log.compared,
        elapsed_secs: figures.elapsed_secs,
        offered_per_sec: figures.offered_per_sec,
        achieved_per_sec: figures.achieved_per_sec,
        most_running: figures.most_running,
        queue_time: figures.queue_time,
        start_latency: figures.start_latency,
        run_time: figures.run_time,
        call_time: Percentiles::of(log.calls),
        retries: log.retries,
        faults,
    })
}

/// Makes the tenants, and starts an agent for each source. Names are new in every run, so that a Wherry can be tested
/// twice.
async fn enrol(
    config: &Config,
    deployment: &Deployment,
    folder: &std::path::Path,
    expected: &mut Expected,
) -> anyhow::Result<(Vec<Source>, Vec<Child>)> {
    let run = &smc::nonce()[..6];
    let mut tenants = Vec::new();
    for number in 0..config.tenants {
        let name = format!("load-{run}-{}", number + 1);
        let client = deployment
            .tenant(&name, config.jobs_of_tenant(number), config.running_limit)
            .await?;
        let request = CreateAccessToken {
            name: Some("loadtest".to_owned()),
            count: Some(1000),
            ..CreateAccessToken::default()
        };
        let code = client.call(&request).await?.answer.access_token_code;
        expected.running_limits.insert(name, config.running_limit);
        tenants.push((client, code));
    }
    let (mut agents, mut enrolling) = (Vec::new(), BTreeMap::new());
    for number in 0..config.sources() {
        let (client, code) = &tenants[number % tenants.len()];
        let name = format!("load-{run}-source-{}", number + 1);
        let seed = config
            .seed
            .wrapping_mul(1_000_003)
            .wrapping_add(number as u64);
        let (disk, agent) =
            load::start_agent(deployment, &name, code, config.disk_mib, seed, folder)?;
        agents.push(agent);
        let image_store = deployment.image_store.clone();
        let enrolled = load::enrolled(client.clone(), name, disk, image_store);
        enrolling.insert(number, enrolled);
    }
    let mut sources = Vec::new();
    for source in enrolling.into_values() {
        sources.push(source.await?);
    }
    Ok((sources, agents))
}

/// Waits for all sources, and reports their progress.
async fn finish(working: &mut JoinSet<()>, log: &SharedLog, jobs: usize) {
    let mut told_at = Instant::now();
    loop {
        match tokio::time::timeout(TELL_INTERVAL, working.join_next()).await {
            Ok(None) => return,
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                log.write(|log| log.faults.push(format!("a source's task ended: {error}")))
            }
            Err(_tell_now) => {}
        }
        if told_at.elapsed() >= TELL_INTERVAL {
            let (accepted, compared) = log.write(|log| (log.accepted.len(), log.compared));
            eprintln!("{accepted} of {jobs} jobs created, {compared} delivered and compared");
            told_at = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Config;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn every_job_has_a_source_and_a_tenant() {
        for (tenants, jobs, sources) in [(3, 30, "24"), (2, 5, "3"), (3, 2, "9"), (1, 1, "1")] {
            let (of_tenants, of_jobs) = (tenants.to_string(), jobs.to_string());
            let line = [
                "loadtest",
                "--tenants",
                &of_tenants,
                "--jobs",
                &of_jobs,
                "--sources",
                sources,
            ];
            let config = Line::parse_from(line).config;
            let by_source: usize = (0..config.sources())
                .map(|number| config.jobs_of_source(number))
                .sum();
            let by_tenant: usize = (0..tenants)
                .map(|number| config.jobs_of_tenant(number))
                .sum();
            assert_eq!((by_source, by_tenant), (jobs, jobs), "{line:?}");
            assert!(
                (0..config.sources()).all(|number| config.jobs_of_source(number) > 0),
                "{line:?}"
            );
        }
    }
}
