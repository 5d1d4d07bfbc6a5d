//! `wherry`: every role, `up` that runs them all, and the command line for tenants and operators.
//!
//! Without the feature `service` it is the program for sources, `wherry-agent`: the agent and nothing else.

// Text of others goes through `output`, which escapes what a terminal would not show as it is.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "service")]
mod admin;
#[cfg(all(test, feature = "service"))]
mod advice;
#[cfg(feature = "service")]
mod bench;
#[cfg(not(feature = "service"))]
#[path = "agent_cli.rs"]
mod cli;
#[cfg(feature = "service")]
mod cli;
mod config_file;
#[cfg(feature = "service")]
mod connection;
#[cfg(all(test, feature = "service"))]
mod deploy_files;
mod failure;
#[cfg(feature = "service")]
mod image;
#[cfg(feature = "service")]
mod job;
mod output;
mod roles;
mod secrets;
#[cfg(feature = "service")]
mod source;
#[cfg(feature = "service")]
mod up;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::FromArgMatches as _;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};

fn main() -> ExitCode {
    if let Err(error) = close_to_others() {
        return failure::report(&error);
    }
    // One TLS provider for everything, chosen once. The only error is that another was chosen before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let code = secrets::take_activation_code();
    let arguments = match config_file::merged(std::env::args_os(), &cli::command(), code) {
        Ok(arguments) => arguments,
        Err(error) => return failure::report(&error),
    };
    let matches = cli::command()
        .args_override_self(true)
        .get_matches_from(arguments);
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli::run(cli) {
        Ok(code) => code.into(),
        Err(error) => failure::report(&error),
    }
}

/// Keeps other accounts from the files that this process makes, and other programs of its user from its memory and
/// environment, which hold secrets. Called before anything else, because both measures apply only to what comes later.
fn close_to_others() -> anyhow::Result<()> {
    umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("can't keep other programs of this user from reading this process's memory")
}
