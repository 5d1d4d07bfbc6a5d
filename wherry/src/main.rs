//! `wherry`: every role, `up` that runs them all, and the command line for tenants and operators.

// Text of others goes through `output`, which escapes what a terminal would not show as it is.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod admin;
#[cfg(test)]
mod advice;
mod bench;
mod cli;
mod config_file;
mod connection;
#[cfg(test)]
mod deploy_files;
mod failure;
mod image;
mod job;
mod output;
mod roles;
mod secrets;
mod source;
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

/// Keeps other accounts from the files that this process makes, and other programs of its user from its memory and environment, in
/// which secrets lie. Called before anything else: both hold for what comes after.
fn close_to_others() -> anyhow::Result<()> {
    umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("can't keep other programs of this user from reading this process's memory")
}
