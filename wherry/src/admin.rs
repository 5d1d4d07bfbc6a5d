//! `wherry admin`: tenants, keys, activation codes and history, straight in the database.

mod history;
mod token;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use domain::name::Name;
use serde_json::{Value, json};
use service::ExitCode;
use store::tenant::{CreateTenant, Quotas, Tenant};
use store::{ConnectConfig, SealKey, Store};

use crate::connection::Output;
use crate::output::{fields, table, text};

#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Postgres, as postgres://user:password@host:port/database. For a `wherry up`, operator.json in its data directory has it.
    #[arg(
        long,
        env = "WHERRY_DATABASE_URL",
        hide_env_values = true,
        global = true,
        default_value = ""
    )]
    database_url: String,
    /// Key of secrets at rest, 64 hexadecimal digits.
    #[arg(
        long,
        env = "WHERRY_SEAL_KEY",
        hide_env_values = true,
        global = true,
        default_value = ""
    )]
    seal_key: String,
    /// How answers are shown.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tenants: the accounts of this service.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Access keys, with which calls are signed.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Activation codes, with which agents register.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Shows what happened to jobs, oldest first, also to those that are deleted.
    History(history::History),
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Makes a tenant, and its first access key.
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        quotas: QuotaFlags,
    },
    /// Lists all tenants.
    List,
    /// Shows one tenant.
    Show {
        /// Its name.
        name: String,
    },
    /// Changes a tenant's quotas; those that are not given stay.
    Update {
        /// Its name.
        name: String,
        #[command(flatten)]
        quotas: QuotaFlags,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes an access key. This is the only time at which its secret is shown.
    Create {
        /// Name of the tenant.
        tenant: String,
    },
    /// Lists a tenant's access keys.
    List {
        /// Name of the tenant.
        tenant: String,
    },
    /// Switches a key off.
    Disable {
        /// Name of the tenant.
        tenant: String,
        /// Id of the key.
        key: String,
    },
}

#[derive(Debug, Args)]
struct QuotaFlags {
    /// Sources that it may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_sources: Option<i32>,
    /// Jobs that it may have, in whatever state.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_jobs: Option<i32>,
    /// Jobs that may run at once; more wait.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_running: Option<i32>,
    /// Workgroups that it may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_workgroups: Option<i32>,
    /// Sources that one of its workgroups may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_workgroup_sources: Option<i32>,
}

impl QuotaFlags {
    fn over(&self, quotas: Quotas) -> Quotas {
        Quotas {
            max_sources: self.max_sources.unwrap_or(quotas.max_sources),
            max_jobs: self.max_jobs.unwrap_or(quotas.max_jobs),
            max_running: self.max_running.unwrap_or(quotas.max_running),
            max_workgroups: self.max_workgroups.unwrap_or(quotas.max_workgroups),
            max_workgroup_sources: self
                .max_workgroup_sources
                .unwrap_or(quotas.max_workgroup_sources),
        }
    }
}

impl Admin {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(
            !self.database_url.is_empty() && !self.seal_key.is_empty(),
            crate::failure::UsageError(
                "give --database-url and --seal-key, or WHERRY_DATABASE_URL and WHERRY_SEAL_KEY"
                    .to_owned()
            )
        );
        let connect = ConnectConfig::new(self.database_url.as_str(), "wherry admin");
        let store = Store::connect(&connect, SealKey::from_hex(&self.seal_key)?).await?;
        let (answer, render) = match self.command {
            Command::Tenant(command) => command.run(&store).await?,
            Command::Key(command) => command.run(&store).await?,
            Command::Token(command) => command.run(&store).await?,
            Command::History(history) => history.run(&store).await?,
        };
        match self.output {
            Output::Json => println!("{answer:#}"),
            Output::Table => print!("{}", render(&answer)),
        }
        Ok(ExitCode::Ok)
    }
}

/// An answer, and how people are shown it.
type Answer = (Value, fn(&Value) -> String);

impl TenantCommand {
    async fn run(self, store: &Store) -> anyhow::Result<Answer> {
        match self {
            Self::Create { name, quotas } => {
                let name = Name::parse(&name)?;
                let CreateTenant::Created(tenant) = store
                    .create_tenant(name.as_str(), &quotas.over(Quotas::default()))
                    .await?
                else {
                    bail!("there is a tenant {name} already: `wherry admin tenant list` shows all");
                };
                let key = store.create_access_key(&tenant.id).await?;
                let mut answer = describe(&tenant);
                answer["AccessKeyId"] = json!(key.id);
                answer["AccessKeySecret"] = json!(key.secret);
                Ok((answer, show))
            }
            Self::List => {
                let tenants: Vec<Value> = store.tenants().await?.iter().map(describe).collect();
                Ok((Value::from(tenants), list))
            }
            Self::Show { name } => Ok((describe(&named(store, &name).await?), show)),
            Self::Update { name, quotas } => {
                let mut tenant = named(store, &name).await?;
                tenant.quotas = quotas.over(tenant.quotas);
                store.set_quotas(&tenant.id, &tenant.quotas).await?;
                Ok((describe(&tenant), show))
            }
        }
    }
}

impl KeyCommand {
    async fn run(self, store: &Store) -> anyhow::Result<Answer> {
        match self {
            Self::Create { tenant } => {
                let key = store
                    .create_access_key(&named(store, &tenant).await?.id)
                    .await?;
                Ok((
                    json!({ "AccessKeyId": key.id, "AccessKeySecret": key.secret }),
                    show,
                ))
            }
            Self::List { tenant } => {
                let keys = store.access_keys(&named(store, &tenant).await?.id).await?;
                let keys: Vec<Value> = keys
                    .iter()
                    .map(|key| json!({ "AccessKeyId": key.id, "Active": key.active, "Created": key.created_at }))
                    .collect();
                Ok((Value::from(keys), list_keys))
            }
            Self::Disable { tenant, key } => {
                let tenant = named(store, &tenant).await?;
                let found = store.set_access_key_active(&tenant.id, &key, false).await?;
                ensure!(found, "tenant {} has no key {key}", tenant.name);
                Ok((json!({ "AccessKeyId": key, "Active": false }), show))
            }
        }
    }
}

async fn named(store: &Store, name: &str) -> anyhow::Result<Tenant> {
    match store.tenant_named(name).await? {
        Some(tenant) => Ok(tenant),
        None => bail!("there is no tenant {name:?}: `wherry admin tenant list` shows all"),
    }
}

fn describe(tenant: &Tenant) -> Value {
    json!({
        "TenantId": tenant.id,
        "Name": tenant.name,
        "MaxSources": tenant.quotas.max_sources,
        "MaxJobs": tenant.quotas.max_jobs,
        "MaxRunning": tenant.quotas.max_running,
        "MaxWorkgroups": tenant.quotas.max_workgroups,
        "MaxWorkgroupSources": tenant.quotas.max_workgroup_sources,
        "Created": tenant.created_at,
    })
}

fn show(answer: &Value) -> String {
    let pairs: Vec<(&str, String)> = answer
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| (name.as_str(), text(answer, name)))
        .collect();
    fields(&pairs)
}

fn list(tenants: &Value) -> String {
    rows(
        tenants,
        &[
            "TenantId",
            "Name",
            "MaxSources",
            "MaxJobs",
            "MaxRunning",
            "Created",
        ],
    )
}

fn list_keys(keys: &Value) -> String {
    rows(keys, &["AccessKeyId", "Active", "Created"])
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
