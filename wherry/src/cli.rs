//! The command line as a whole.

use clap::{Args, Parser, Subcommand};
use service::ExitCode;

use crate::{admin, bench, connection, image, job, roles, source, up};

/// A self-hosted service that migrates servers: it speaks the SMC API, so SDKs and command lines for it work by changing the endpoint.
#[derive(Debug, Parser)]
#[command(
    name = "wherry",
    version,
    max_term_width = 110,
    after_help = "Start here:\n  \
        wherry up --data-dir ./data                 everything on this machine\n  \
        wherry agent --server URL --activation-code CODE --state-dir DIR\n  \
        export WHERRY_BOOTSTRAP=./data/bootstrap.json\n  \
        wherry source list; wherry job create --source NAME --start; wherry job watch NAME\n\n\
        `wherry help COMMAND` explains each command and its settings. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an address is taken, \
        4 a service can't be reached, 5 draining took too long, 130 ended by a second signal."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every role on this machine, with a private Postgres and NATS unless it is given others.
    Up(Box<up::Up>),
    /// Runs the SMC API and the agents' listener.
    Gateway(Box<roles::Gateway>),
    /// Runs the scheduler: slots, timers, lost leases, messages.
    Scheduler(Box<roles::Scheduler>),
    /// Runs a worker: takes jobs, provisions instances, delivers images.
    Worker(Box<roles::Worker>),
    /// Runs the agent on a server that is to be migrated.
    Agent(Box<roles::Agent>),
    /// Runs the receiver of an instance. Workers start it; people have no need to.
    Receiver(Box<roles::Receiver>),
    /// Brings the database to this version's schema.
    Migrate(roles::Migrate),
    /// Manages tenants, their quotas, keys and activation codes, as the operator, in the database.
    Admin(admin::Admin),
    /// Shows migration sources: the servers whose agents have registered.
    Source(Connected<source::Source>),
    /// Makes, drives and watches replication jobs.
    Job(Connected<job::Job>),
    /// Shows, checks, fetches and deletes delivered images.
    Image(Connected<image::Image>),
    /// Measures the data path on this machine.
    Bench(bench::Bench),
    /// Puts load on a Wherry, and checks that every limit holds.
    Loadtest(Loadtest),
}

/// A command that calls the API.
#[derive(Debug, Args)]
struct Connected<T: Subcommand> {
    #[command(flatten)]
    connection: connection::Connection,
    #[command(subcommand)]
    command: T,
}

#[derive(Debug, Args)]
struct Loadtest {
    #[command(subcommand)]
    command: LoadtestCommand,
}

#[derive(Debug, Subcommand)]
enum LoadtestCommand {
    /// Starts many real jobs; reports rates, latencies and whether a limit was ever passed.
    Jobs(Box<loadtest::jobs::Config>),
}

impl Loadtest {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let LoadtestCommand::Jobs(config) = self.command;
        let is_json = config.json;
        let report = loadtest::jobs::run(*config).await?;
        if is_json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{report}");
        }
        Ok(if report.is_clean() {
            ExitCode::Ok
        } else {
            ExitCode::Failed
        })
    }
}

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(up) => roles::process(up.telemetry.clone(), "wherry", |shutdown| {
            up::run(*up, shutdown)
        }),
        Command::Gateway(role) => role.run(),
        Command::Scheduler(role) => role.run(),
        Command::Worker(role) => role.run(),
        Command::Agent(role) => role.run(),
        Command::Receiver(role) => role.run(),
        Command::Migrate(migrate) => block_on(migrate.run()),
        Command::Admin(admin) => block_on(admin.run()),
        Command::Bench(bench) => block_on(bench.run()),
        Command::Source(command) => {
            block_on(async { command.command.run(&command.connection.open()?).await })
        }
        Command::Job(command) => {
            block_on(async { command.command.run(&command.connection.open()?).await })
        }
        Command::Image(command) => {
            block_on(async { command.command.run(&command.connection.open()?).await })
        }
        Command::Loadtest(loadtest) => block_on(loadtest.run()),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
