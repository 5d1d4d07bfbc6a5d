//! `wherry admin policy`: what users may do.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows, show};
use crate::failure::UsageError;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Stores a policy.
    Create {
        /// Name of the tenant.
        tenant: String,
        /// Its name.
        name: String,
        /// File with its document, JSON; - for standard input.
        document: PathBuf,
    },
    /// Lists a tenant's policies.
    List {
        /// Name of the tenant.
        tenant: String,
    },
    /// Shows one policy with its document.
    Show {
        /// Name of the tenant.
        tenant: String,
        /// Name of the policy.
        name: String,
    },
    /// Stores another document in its place. Gateways follow within seconds.
    Update {
        /// Name of the tenant.
        tenant: String,
        /// Name of the policy.
        name: String,
        /// File with its document, JSON; - for standard input.
        document: PathBuf,
    },
    /// Deletes a policy that is attached to no user.
    Delete {
        /// Name of the tenant.
        tenant: String,
        /// Name of the policy.
        name: String,
    },
}

impl PolicyCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create {
                tenant,
                name,
                document,
            } => {
                let document = read(&document)?;
                let request = wire::CreatePolicyRequest {
                    tenant,
                    name,
                    document,
                };
                let policy = client.create_policy(request).await.map_err(said)?;
                Ok((describe(policy.into_inner()), show))
            }
            Self::List { tenant } => {
                let policies = policies(client, tenant).await?;
                let answer = policies.into_iter().map(describe).collect();
                Ok((answer, |policies| {
                    rows(policies, &["Name", "Users", "Created", "Updated"])
                }))
            }
            Self::Show { tenant, name } => {
                let found = policies(client, tenant.clone()).await?;
                let found = found.into_iter().find(|found| found.name == name);
                let found = found.with_context(|| {
                    format!("tenant {tenant} has no policy {name:?}: `wherry admin policy list {tenant}` shows all")
                })?;
                Ok((describe(found), show))
            }
            Self::Update {
                tenant,
                name,
                document,
            } => {
                let document = read(&document)?;
                let request = wire::UpdatePolicyRequest {
                    tenant,
                    name,
                    document,
                };
                let policy = client.update_policy(request).await.map_err(said)?;
                Ok((describe(policy.into_inner()), show))
            }
            Self::Delete { tenant, name } => {
                let deleted = name.clone();
                let request = wire::DeletePolicyRequest { tenant, name };
                client.delete_policy(request).await.map_err(said)?;
                Ok((json!({ "Name": deleted, "Deleted": true }), show))
            }
        }
    }
}

/// The document in a file, or on standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|error| {
        UsageError(format!(
            "can't read the policy in {}: {error}",
            path.display()
        ))
        .into()
    })
}

async fn policies(client: &mut Client, tenant: String) -> anyhow::Result<Vec<wire::Policy>> {
    let request = wire::ListPoliciesRequest { tenant };
    let listed = client.list_policies(request).await.map_err(said)?;
    Ok(listed.into_inner().policies)
}

fn describe(policy: wire::Policy) -> Value {
    json!({
        "Name": policy.name,
        "Users": policy.users.join(", "),
        "Created": policy.created,
        "Updated": policy.updated,
        "Document": policy.document,
    })
}
