//! The command line as a whole.

use std::fmt::Display;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde::Serialize;
use service::ExitCode;

use crate::{admin, bench, config_file, connection, image, job, output, roles, source, up};

/// A self-hosted service that migrates servers: it speaks the SMC API, so SDKs and command lines for it work by
/// changing the endpoint.
#[derive(Debug, Parser)]
#[command(name = "wherry", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every role on this machine, with a private Postgres and NATS unless given others.
    Up(Box<up::Up>),
    /// Runs the SMC API and the agents' listener.
    Gateway(Box<roles::Gateway>),
    /// Runs the scheduler: slots, timers, lost leases, messages.
    Scheduler(Box<roles::Scheduler>),
    /// Runs a worker: takes jobs, provisions instances, delivers images.
    Worker(Box<roles::Worker>),
    /// Runs the agent on a server that is to be migrated.
    #[command(after_help = "Example, as root on the source:\n  \
        wherry agent --server https://migrate.example:8701 --activation-code-file FILE --state-dir /var/lib/wherry-agent")]
    Agent(Box<roles::Agent>),
    /// Runs the receiver of an instance. Workers start it; people have no need to.
    Receiver(Box<roles::Receiver>),
    /// Brings the database to this version's schema.
    Migrate(roles::Migrate),
    /// Manages tenants, quotas, keys, codes and networks, through the gateway's socket.
    #[command(
        after_help = "It talks to the gateway through a socket, and whoever may open that is the operator.\n\nExamples:\n  \
        export WHERRY_ADMIN_SOCKET=/run/wherry/gateway/admin.sock    (for a `wherry up`: export WHERRY_DATA_DIR=DIR)\n  \
        wherry admin tenant create acme --max-running 5\n  \
        wherry admin key create acme\n  \
        wherry admin token create acme --count 10\n  \
        wherry admin audit list --tenant acme --since 2026-11-23T00:00:00Z\n  \
        wherry admin history --tenant acme"
    )]
    Admin(admin::Admin),
    /// Shows migration sources: the servers whose agents have registered.
    #[command(after_help = "Examples:\n  \
        export WHERRY_BOOTSTRAP=./data/bootstrap.json\n  \
        wherry source list\n  \
        wherry source show web-1 --output json")]
    Source(Connected<source::Source>),
    /// Makes, drives and watches replication jobs.
    #[command(after_help = "Examples:\n  \
        wherry job create --source web-1 --name web-1 --checksum --start\n  \
        wherry job watch web-1\n  \
        wherry job explain web-1")]
    Job(Connected<job::Job>),
    /// Shows, checks, fetches and deletes delivered images.
    #[command(after_help = "Examples:\n  \
        wherry image list\n  \
        wherry image verify m-…\n  \
        wherry image export m-… --to ./web-1 --format qcow2")]
    Image(Connected<image::Image>),
    /// Measures the data path on this machine.
    Bench(bench::Bench),
    /// Puts load on a Wherry, and checks that every limit holds.
    Loadtest(Loadtest),
    /// Shows the version of this program and of its API.
    Version,
}

/// The commands as `wherry --help` groups them. Every command is in one group.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Run Wherry",
        &[
            "up",
            "gateway",
            "scheduler",
            "worker",
            "receiver",
            "migrate",
        ],
    ),
    ("On a server that is to be migrated", &["agent"]),
    ("Migrate, through the API", &["source", "job", "image"]),
    (
        "Operate and measure",
        &["admin", "bench", "loadtest", "version"],
    ),
];

const START_HERE: &str = "Start here:
  wherry up --data-dir ./data
  wherry agent --server URL --activation-code-file FILE --state-dir DIR
  export WHERRY_BOOTSTRAP=./data/bootstrap.json
  wherry source list
  wherry job create --source NAME --start
  wherry job watch JOB

`wherry help COMMAND` explains each command and its settings.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an address is taken, 4 a service can't be reached,
5 draining took too long, 130 ended by a second signal.";

/// The command line, with its commands in groups: clap itself puts all of them into one list.
pub(crate) fn command() -> clap::Command {
    let command = config_file::declared(Cli::command());
    let mut help = String::new();
    for (heading, names) in GROUPS {
        help.push_str(&format!("{heading}:\n"));
        for name in names {
            let about = command
                .find_subcommand(name)
                .and_then(clap::Command::get_about);
            help.push_str(&format!(
                "  {name:<10} {}\n",
                about.map(ToString::to_string).unwrap_or_default()
            ));
        }
        help.push('\n');
    }
    help.push_str(START_HERE);
    command.after_help(help).help_template(
        "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}",
    )
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
    /// Makes signed calls at a set rate; reports rates, latencies, errors and processor time.
    Api(Box<loadtest::api::Config>),
}

impl Loadtest {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let is_clean = match self.command {
            LoadtestCommand::Jobs(config) => {
                let is_json = config.json;
                let report = loadtest::jobs::run(*config).await?;
                print_report(&report, is_json)?;
                report.is_clean()
            }
            LoadtestCommand::Api(config) => {
                let is_json = config.json;
                let report = loadtest::api::run(*config).await?;
                print_report(&report, is_json)?;
                report.is_clean()
            }
        };
        Ok(if is_clean {
            ExitCode::Ok
        } else {
            ExitCode::Failed
        })
    }
}

fn print_report(report: &(impl Serialize + Display), is_json: bool) -> anyhow::Result<()> {
    if is_json {
        output::json(serde_json::to_string_pretty(report)?);
    } else {
        output::lines(&report.to_string());
    }
    Ok(())
}

/// Runs the command that was given.
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
        Command::Image(command) => block_on(async {
            match command.command.run_alone().await {
                Some(done) => done,
                None => command.command.run(&command.connection.open()?).await,
            }
        }),
        Command::Loadtest(loadtest) => block_on(loadtest.run()),
        Command::Version => {
            output::line(format_args!(
                "wherry {}, SMC API {}",
                env!("CARGO_PKG_VERSION"),
                smc::API_VERSION
            ));
            Ok(ExitCode::Ok)
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn every_command_is_in_one_group_and_says_what_it_does() {
        command().debug_assert();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        let command = command();
        let mut known: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
        let help = command.clone().render_help().to_string();
        for subcommand in command.get_subcommands() {
            let about = subcommand
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(!about.is_empty(), "{}", subcommand.get_name());
            assert!(
                help.contains(&format!("  {:<10} {about}\n", subcommand.get_name())),
                "{help}"
            );
        }
    }

    #[test]
    fn the_lines_of_the_read_me_are_understood() {
        for line in [
            "wherry up --data-dir ./data",
            "wherry up --data-dir ./data --api 127.0.0.1:0 --agents 127.0.0.1:0 --database-url postgres://h/d --nats-url nats://h",
            "wherry agent --server https://h:8701 --state-dir /s --name web --disk /dev/a --disk /dev/b",
            "wherry source list --endpoint http://h --access-key-id i --access-key-secret s --region r --output json",
            "wherry job create --source web --system-disk-size 40 --data-disk 1:40 --data-disk 2:60 --name j --image-name m --start",
            "wherry job watch web --bootstrap b.json",
            "wherry job explain web --profile work",
            "wherry image verify m-1",
            "wherry image verify --path dir",
            "wherry image verify --disk d --manifest f",
            "wherry image export m-1 --to dir --format raw",
            "wherry admin tenant create acme --max-running 5",
            "wherry admin tenant update acme --max-jobs 0",
            "wherry admin tenant update acme --rename acme-2 --socket s",
            "wherry admin tenant delete acme --data-dir d",
            "wherry admin quota update acme --calls-per-second 10 --operation-calls-per-second 5",
            "wherry admin quota list",
            "wherry admin key update acme key --active off --output json",
            "wherry admin key delete acme key",
            "wherry admin token create acme --count 10 --days 7",
            "wherry admin token update acme at-1 --status unactivated",
            "wherry admin network create --tenant acme --region north",
            "wherry admin network create --tenant acme --vpc --region north",
            "wherry admin network create --tenant acme --vpc vpc-1 --vswitch --receiver-host h",
            "wherry admin audit list --tenant t --since 2026-11-23T00:00:00Z --until 2026-11-24T00:00:00Z --operation o --principal p --outcome OK",
            "wherry admin history --tenant acme --after 7",
            "wherry loadtest jobs --tenants 2 --jobs 20 --running-limit 2 --disk-mib 8 --json",
            "wherry migrate --database-url postgres://h/d",
            "wherry version",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    /// All commands below this one, and itself.
    fn with_subcommands(command: &clap::Command) -> Vec<&clap::Command> {
        let mut all = vec![command];
        for subcommand in command.get_subcommands() {
            all.extend(with_subcommands(subcommand));
        }
        all
    }

    #[test]
    fn a_setting_that_holds_paths_is_never_split() {
        // Addresses, names and ids have no commas in them. A path may have any character.
        let without_commas = ["agents-name", "trusted-proxies"];
        let command = command();
        let split: std::collections::BTreeSet<&str> = with_subcommands(&command)
            .into_iter()
            .flat_map(clap::Command::get_arguments)
            .filter(|argument| argument.get_value_delimiter().is_some())
            .filter_map(clap::Arg::get_long)
            .collect();
        assert_eq!(split.into_iter().collect::<Vec<_>>(), without_commas);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, why) in [
            ("wherry job create", "--source"),
            ("wherry job create --source s --data-disk 40", "INDEX:GIB"),
            (
                "wherry job create --source s --start --at 2030-01-01T00:00:00Z",
                "cannot be used with",
            ),
            (
                "wherry source list --output yaml",
                "possible values: table, json",
            ),
            ("wherry up --api nowhere", "invalid socket address"),
            ("wherry up --slots 0", "not in 1..=1000"),
            ("wherry agent --server http://h:1 --state-dir /s", "https"),
            ("wherry admin tenant create a --max-running -1", "-1"),
            (
                "wherry loadtest jobs --endpoint http://h",
                "--agent-endpoint",
            ),
            ("wherry loadtest jobs --tenants 0", "from 1 to 100000"),
            ("wherry jobs", "job"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(why), "{line} says {error}");
        }
    }
}
