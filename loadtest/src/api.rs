//! `wherry loadtest api`: signed calls at a set rate.

mod cpu;
mod drive;
mod mix;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use secrecy::SecretString;
use store::tenant::CallRates;
use store::{ConnectConfig, SealKey, Store};

use crate::deployment::Deployment;
use crate::figures::Machine;
use cpu::CpuMeter;
use mix::Mix;
pub use report::{OperationFigures, Report, Settings};

/// Load on the API: the rate and kind of calls, and the size of the database.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(
    after_help = "Without --endpoint, it starts a `wherry up` of its own, fills its database, and measures processor time as well.\n\n\
    Examples:\n  wherry loadtest api --rate 500 --duration-secs 30\n  wherry loadtest api --rate 0 --connections 16 --rows 100000 --json >report.json\n  \
    wherry loadtest api --endpoint http://127.0.0.1:8700 --access-key-id … --access-key-secret … --rate 50\n\n\
    Exit code 0 when every call was answered as it should be, 1 otherwise."
)]
pub struct Config {
    /// Calls a second, all connections together; 0 is as many as are answered.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds to call for, after a warm-up of a tenth of that.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration_secs: u64,
    /// Calls under way at once, at most.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub connections: u32,
    /// Kind of calls: `read` (95 % lists and look-ups, 5 % changes) or `write` (half changes). With --endpoint,
    /// descriptions are all that is changed: no job is made, started, stopped or deleted.
    #[arg(long, value_enum, default_value_t = Mix::Read)]
    pub mix: Mix,
    /// Tenants to make.
    #[arg(long, default_value_t = 10, conflicts_with = "endpoint", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub tenants: u32,
    /// Sources, and as many jobs, to put into the database before, over all tenants.
    #[arg(long, default_value_t = 100_000, conflicts_with = "endpoint", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub rows: u32,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Directory for its own Wherry. Without it, a new one under the system's directory for temporary files.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// API of a Wherry that runs already.
    #[arg(long, requires_all = ["access_key_id", "access_key_secret"])]
    pub endpoint: Option<String>,
    /// Key for that Wherry.
    #[arg(long, env = "WHERRY_ACCESS_KEY_ID", requires = "endpoint")]
    pub access_key_id: Option<String>,
    /// Its secret.
    #[arg(
        long,
        env = "WHERRY_ACCESS_KEY_SECRET",
        hide_env_values = true,
        requires = "endpoint"
    )]
    pub access_key_secret: Option<SecretString>,
    /// Region of the service.
    #[arg(long, default_value = "local")]
    pub region: String,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e6).contains(&rate) => Ok(rate),
        _ => Err("give calls per second, from 0 to 1000000".to_owned()),
    }
}

/// Calls and reports. Wrong answers are in the report; an error means that no load could be applied.
///
/// # Errors
/// Wherry does not start or can't be reached, or the account has no source or job.
pub async fn run(config: Config) -> anyhow::Result<Report> {
    if let Some(endpoint) = &config.endpoint {
        use secrecy::ExposeSecret as _;
        let id = config.access_key_id.clone().unwrap_or_default();
        let secret = config.access_key_secret.as_ref();
        let secret = secret.map(|secret| secret.expose_secret().to_owned());
        let credentials = smc::Credentials::new(id, secret.unwrap_or_default());
        let client = smc::Client::new(endpoint, credentials, &config.region)?;
        return measure(&config, vec![client], None, 0).await;
    }
    let folder = match &config.work_dir {
        Some(parent) => {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("can't make {}", parent.display()))?;
            tempfile::tempdir_in(parent)
        }
        None => tempfile::tempdir(),
    }
    .context("can't make a directory to work in: choose one with --work-dir")?;
    eprintln!("starting Wherry and {} tenants", config.tenants);
    let deployment = Deployment::start(folder.path(), &config.region, None).await?;
    let clients = fill(&config, &deployment).await?;
    let meter = deployment.process_id().map(CpuMeter::of_tree);
    let report = measure(&config, clients, meter, config.rows).await;
    deployment.end().await;
    report
}

/// Makes the tenants and their rows, and lifts the limits on each account's rate of calls: those limits are not under
/// test here.
async fn fill(config: &Config, deployment: &Deployment) -> anyhow::Result<Vec<smc::Client>> {
    let database = deployment
        .database()
        .context("only a Wherry of our own is filled")?;
    let seal = SealKey::from_hex(&database.seal_key).context("the deployment's seal key")?;
    let connect = ConnectConfig::new(database.url.as_str(), "wherry loadtest");
    let store = Store::connect(&connect, seal).await?;
    let each = config.rows.div_ceil(config.tenants);
    eprintln!("filling the database: {each} sources and jobs for each tenant");
    let mut clients = Vec::new();
    for number in 1..=config.tenants {
        let name = format!("load-{number}");
        // Room for a second job of each source, and for none that runs: those started here stay in the queue.
        let most = usize::try_from(each)? * 2;
        clients.push(deployment.tenant(&name, most, 0).await?);
        let tenant = store.tenant_named(&name).await?;
        let tenant = tenant.with_context(|| format!("tenant {name} was made and is gone"))?;
        let rates = CallRates {
            account_per_second: 1_000_000,
            operation_per_second: 1_000_000,
        };
        store.set_call_rates(&tenant.id, rates).await?;
        store.fill(&tenant.id, &config.region, each).await?;
    }
    store.close().await;
    Ok(clients)
}

async fn measure(
    config: &Config,
    clients: Vec<smc::Client>,
    meter: Option<CpuMeter>,
    rows: u32,
) -> anyhow::Result<Report> {
    // A deployment given by its endpoint is there to be measured: its jobs must not be removed.
    let accounts = drive::accounts(clients, config.endpoint.is_none()).await?;
    ensure!(!accounts.is_empty(), "no account to call for");
    let duration = Duration::from_secs(config.duration_secs);
    eprintln!("calling for {} s", config.duration_secs);
    let load = drive::Load {
        accounts,
        mix: config.mix,
        rate: config.rate,
        connections: config.connections,
    };
    load.clone().put_on(duration / 10).await;
    let before = meter.as_ref().map(CpuMeter::read);
    let own_before = cpu::own();
    let driven = load.put_on(duration).await;
    let own = cpu::own() - own_before;
    let used = match (&meter, before) {
        (Some(meter), Some(before)) => Some(meter.read().since(&before)),
        _ => None,
    };
    if driven.calls() == 0 {
        bail!("not one call was answered");
    }
    Ok(Report::of(
        Settings {
            rate: config.rate,
            duration_secs: config.duration_secs,
            connections: config.connections,
            mix: config.mix,
            rows,
        },
        Machine::this(),
        driven,
        used,
        own,
    ))
}
