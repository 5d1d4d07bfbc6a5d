//! `wherry admin`: what operators do, through the gateway's socket.

mod audit;
mod dead_letter;
mod history;
mod key;
mod network;
mod policy;
mod seal;
mod socket;
mod tenant;
mod token;
mod user;

use clap::{Args, Subcommand};
use serde_json::Value;
use service::ExitCode;

pub(crate) use socket::IN_DATA_DIR;

use crate::connection::Output;
use crate::output::{self, fields, table, text};

#[derive(Debug, Args)]
pub(crate) struct Admin {
    #[command(flatten)]
    at: socket::At,
    /// Format of answers.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tenants: the accounts of this service.
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Limits of tenants: what they may have, and how many calls they may make.
    #[command(subcommand)]
    Quota(tenant::QuotaCommand),
    /// Access keys, with which calls are signed.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Users of a tenant, who may do what their policies allow.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Policies: what users may do (docs/policies.md).
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Activation codes, with which agents register.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Regions, VPCs and vSwitches of tenants.
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Messages between Wherry's processes that no process could read or carry out.
    #[command(subcommand)]
    DeadLetter(dead_letter::DeadLetterCommand),
    /// The key of secrets at rest.
    #[command(subcommand)]
    Seal(seal::SealCommand),
    /// The record of who changed what.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Shows what happened to jobs, oldest first, also to those that are deleted.
    History(history::History),
}

impl Admin {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.at.open().await?;
        let client = &mut client;
        let (answer, render) = match self.command {
            Command::Tenant(command) => command.run(client).await?,
            Command::Quota(command) => command.run(client).await?,
            Command::Key(command) => command.run(client).await?,
            Command::User(command) => command.run(client).await?,
            Command::Policy(command) => command.run(client).await?,
            Command::Token(command) => command.run(client).await?,
            Command::Network(command) => command.run(client).await?,
            Command::DeadLetter(command) => command.run(client).await?,
            Command::Seal(command) => command.run(client).await?,
            Command::Audit(command) => command.run(client).await?,
            Command::History(history) => history.run(client).await?,
        };
        match self.output {
            Output::Json => output::json(format_args!("{answer:#}")),
            Output::Table => output::lines(&render(&answer)),
        }
        Ok(ExitCode::Ok)
    }
}

/// An answer, and how people are shown it.
type Answer = (Value, fn(&Value) -> String);

fn show(answer: &Value) -> String {
    let pairs: Vec<(&str, String)> = answer
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| (name.as_str(), text(answer, name)))
        .collect();
    fields(&pairs)
}

fn rows(items: &Value, columns: &[&str]) -> String {
    let rows: Vec<Vec<String>> = items
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| columns.iter().map(|column| text(item, column)).collect())
        .collect();
    table(columns, &rows)
}
