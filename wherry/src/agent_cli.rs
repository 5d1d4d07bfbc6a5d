//! The command line of the program for sources: the agent alone.

use clap::{CommandFactory as _, Parser, Subcommand};
use service::ExitCode;

use crate::{config_file, output, roles};

/// The agent of Wherry: it sends the disks of this server to a self-hosted migration service.
#[derive(Debug, Parser)]
#[command(name = "wherry-agent", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent on a server that is to be migrated.
    Agent(Box<roles::Agent>),
    /// Shows which version this is.
    Version,
}

/// Returns the command line.
pub(crate) fn command() -> clap::Command {
    config_file::declared(Cli::command())
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Agent(role) => role.run(),
        Command::Version => {
            output::line(format_args!("wherry-agent {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::Ok)
        }
    }
}
