//! `wherry admin user`: users of a tenant.

use anyhow::Context as _;
use clap::Subcommand;
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows, show};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Makes a user. It may do nothing until a policy is attached, and has no key until `key create --user` makes one.
    Create {
        /// Name of the tenant.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// Lists a tenant's users.
    List {
        /// Name of the tenant.
        tenant: String,
    },
    /// Shows one user.
    Show {
        /// Name of the tenant.
        tenant: String,
        /// Name of the user.
        name: String,
    },
    /// Renames a user, attaches and detaches policies. Gateways follow within seconds.
    Update {
        /// Name of the tenant.
        tenant: String,
        /// Name of the user.
        name: String,
        /// Its new name.
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// A policy that it gets. Can be given several times.
        #[arg(long, value_name = "POLICY")]
        attach: Vec<String>,
        /// A policy that it loses. Can be given several times.
        #[arg(long, value_name = "POLICY")]
        detach: Vec<String>,
    },
    /// Deletes a user, if it has no keys that last.
    Delete {
        /// Name of the tenant.
        tenant: String,
        /// Name of the user.
        name: String,
    },
}

impl UserCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create { tenant, name } => {
                let request = wire::CreateUserRequest { tenant, name };
                let user = client.create_user(request).await.map_err(said)?;
                Ok((describe(user.into_inner()), show))
            }
            Self::List { tenant } => {
                let users = users(client, tenant).await?;
                let answer = users.into_iter().map(describe).collect();
                Ok((answer, |users| {
                    rows(users, &["Name", "UserId", "Policies", "Created"])
                }))
            }
            Self::Show { tenant, name } => {
                let found = users(client, tenant.clone()).await?;
                let found = found.into_iter().find(|found| found.name == name);
                let found = found.with_context(|| {
                    format!("tenant {tenant} has no user {name:?}: `wherry admin user list {tenant}` shows all")
                })?;
                Ok((describe(found), show))
            }
            Self::Update {
                tenant,
                name,
                rename,
                attach,
                detach,
            } => {
                let request = wire::UpdateUserRequest {
                    tenant,
                    name,
                    new_name: rename,
                    attach,
                    detach,
                };
                let user = client.update_user(request).await.map_err(said)?;
                Ok((describe(user.into_inner()), show))
            }
            Self::Delete { tenant, name } => {
                let deleted = name.clone();
                let request = wire::DeleteUserRequest { tenant, name };
                client.delete_user(request).await.map_err(said)?;
                Ok((json!({ "Name": deleted, "Deleted": true }), show))
            }
        }
    }
}

async fn users(client: &mut Client, tenant: String) -> anyhow::Result<Vec<wire::User>> {
    let request = wire::ListUsersRequest { tenant };
    let listed = client.list_users(request).await.map_err(said)?;
    Ok(listed.into_inner().users)
}

fn describe(user: wire::User) -> Value {
    json!({
        "Name": user.name,
        "UserId": user.id,
        "Policies": user.policies.join(", "),
        "Created": user.created,
    })
}
