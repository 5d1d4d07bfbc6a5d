//! `wherry admin key`: access keys.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, policy, rows, show};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Makes an access key. This is the only time at which its secret is shown.
    Create {
        /// Name of the tenant.
        tenant: String,
        /// The user whose key it is; without one it is the account's own and may do everything.
        #[arg(long)]
        user: Option<String>,
        /// Makes a temporary key, which needs its security token with each call and ends after so many seconds, 900 to
        /// 43200.
        #[arg(long, value_name = "SECONDS")]
        temporary: Option<u64>,
        /// File with what a temporary key may do at most, JSON; - for standard input.
        #[arg(long, value_name = "FILE", requires = "temporary")]
        session_policy: Option<PathBuf>,
    },
    /// Lists a tenant's access keys, oldest first.
    List {
        /// Name of the tenant.
        tenant: String,
    },
    /// Shows one access key, without its secret.
    Show {
        /// Name of the tenant.
        tenant: String,
        /// Id of the key.
        key: String,
    },
    /// Switches a key on or off. Gateways follow within five seconds.
    Update {
        /// Name of the tenant.
        tenant: String,
        /// Id of the key.
        key: String,
        /// State of the key: on if it may sign.
        #[arg(long, value_enum)]
        active: Switch,
    },
    /// Deletes a key for ever.
    Delete {
        /// Name of the tenant.
        tenant: String,
        /// Id of the key.
        key: String,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

impl KeyCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create {
                tenant,
                user,
                temporary,
                session_policy,
            } => {
                let session_policy = session_policy.as_deref().map(policy::read).transpose()?;
                let request = wire::CreateKeyRequest {
                    tenant,
                    user,
                    temporary_secs: temporary,
                    session_policy,
                };
                let key = client.create_key(request).await.map_err(said)?.into_inner();
                let mut answer = json!({ "AccessKeyId": key.id, "AccessKeySecret": key.secret });
                if let (Some(token), Some(expires)) = (key.security_token, key.expires) {
                    answer["SecurityToken"] = token.into();
                    answer["Expires"] = expires.into();
                }
                Ok((answer, show))
            }
            Self::List { tenant } => {
                let keys = keys(client, tenant).await?;
                let answer = keys.into_iter().map(describe).collect();
                Ok((answer, |keys| {
                    rows(
                        keys,
                        &["AccessKeyId", "User", "Active", "Expires", "Created"],
                    )
                }))
            }
            Self::Show { tenant, key } => {
                let found = keys(client, tenant.clone()).await?;
                let found = found.into_iter().find(|found| found.id == key);
                let found = found.with_context(|| {
                    format!("tenant {tenant} has no key {key}: `wherry admin key list {tenant}` shows all")
                })?;
                Ok((describe(found), show))
            }
            Self::Update {
                tenant,
                key,
                active,
            } => {
                let request = wire::UpdateKeyRequest {
                    tenant,
                    id: key,
                    is_active: active == Switch::On,
                };
                let key = client.update_key(request).await.map_err(said)?;
                Ok((describe(key.into_inner()), show))
            }
            Self::Delete { tenant, key } => {
                let id = key.clone();
                let request = wire::DeleteKeyRequest { tenant, id };
                client.delete_key(request).await.map_err(said)?;
                Ok((json!({ "AccessKeyId": key, "Deleted": true }), show))
            }
        }
    }
}

async fn keys(client: &mut Client, tenant: String) -> anyhow::Result<Vec<wire::Key>> {
    let request = wire::ListKeysRequest { tenant };
    let listed = client.list_keys(request).await.map_err(said)?;
    Ok(listed.into_inner().keys)
}

fn describe(key: wire::Key) -> Value {
    json!({
        "AccessKeyId": key.id,
        "User": key.user,
        "Active": key.is_active,
        "Expires": key.expires,
        "Created": key.created,
    })
}
