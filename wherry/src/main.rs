//! `wherry`: every role, `up` that runs them all, and the command line for tenants and operators.

// Text of others goes through `output`, which escapes what a terminal would not show as it is.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod admin;
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
mod source;
mod up;

use std::process::ExitCode;

use clap::FromArgMatches as _;

fn main() -> ExitCode {
    // One TLS provider for everything, chosen once. The only error is that another was chosen before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let arguments = match config_file::merged(std::env::args_os(), &cli::command()) {
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
