//! `wherry admin token`: activation codes.

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows, show};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Makes an activation code. This is the only time at which it is shown.
    Create {
        /// Name of the tenant whose sources the agents become.
        tenant: String,
        /// Name of the code, for people.
        #[arg(long)]
        name: Option<String>,
        /// Agents that may register with it.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..))]
        count: i32,
        /// Days that it is valid.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..))]
        days: i32,
    },
    /// Lists a tenant's activation codes, newest first, without the codes themselves.
    List {
        /// Name of the tenant.
        tenant: String,
    },
    /// Shows one activation code, without the code itself.
    Show {
        /// Name of the tenant.
        tenant: String,
        /// Id of the code, at-….
        token: String,
    },
    /// Disables a code for good: no more agents register with it, those that have stay.
    Update {
        /// Name of the tenant.
        tenant: String,
        /// Id of the code, at-….
        token: String,
        /// Its new status.
        #[arg(long, value_enum)]
        status: NewStatus,
    },
    /// Deletes a code. Agents that registered with it stay.
    Delete {
        /// Name of the tenant.
        tenant: String,
        /// Id of the code, at-….
        token: String,
    },
}

/// Statuses that a code can be given by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NewStatus {
    /// As when it is used up.
    Unactivated,
}

impl TokenCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create {
                tenant,
                name,
                count,
                days,
            } => {
                let request = wire::CreateTokenRequest {
                    tenant,
                    name,
                    description: String::new(),
                    count,
                    days,
                };
                let token = client.create_token(request).await.map_err(said)?;
                let token = token.into_inner();
                let answer = json!({ "AccessTokenId": token.id, "AccessTokenCode": token.code });
                Ok((answer, show))
            }
            Self::List { tenant } => {
                let answer = all(client, &tenant).await?;
                let answer = answer.into_iter().map(describe).collect();
                Ok((answer, |tokens| {
                    rows(
                        tokens,
                        &[
                            "AccessTokenId",
                            "Name",
                            "Status",
                            "Registered",
                            "Count",
                            "Days",
                            "Created",
                        ],
                    )
                }))
            }
            Self::Show { tenant, token } => {
                let found = one(client, &tenant, &token).await?;
                Ok((describe(found), show))
            }
            Self::Update {
                tenant,
                token,
                status: NewStatus::Unactivated,
            } => {
                let request = wire::DisableTokenRequest {
                    tenant: tenant.clone(),
                    id: token.clone(),
                };
                client.disable_token(request).await.map_err(said)?;
                let found = one(client, &tenant, &token).await?;
                Ok((describe(found), show))
            }
            Self::Delete { tenant, token } => {
                let id = token.clone();
                let request = wire::DeleteTokenRequest { tenant, id };
                client.delete_token(request).await.map_err(said)?;
                Ok((json!({ "AccessTokenId": token, "Deleted": true }), show))
            }
        }
    }
}

/// Every code, over all pages.
async fn all(client: &mut Client, tenant: &str) -> anyhow::Result<Vec<wire::Token>> {
    let mut tokens = Vec::new();
    for page in 1.. {
        let request = wire::ListTokensRequest {
            tenant: tenant.to_owned(),
            page,
            id: String::new(),
        };
        let listed = client.list_tokens(request).await.map_err(said)?;
        let listed = listed.into_inner().tokens;
        if listed.is_empty() {
            break;
        }
        tokens.extend(listed);
    }
    Ok(tokens)
}

async fn one(client: &mut Client, tenant: &str, id: &str) -> anyhow::Result<wire::Token> {
    let request = wire::ListTokensRequest {
        tenant: tenant.to_owned(),
        page: 1,
        id: id.to_owned(),
    };
    let listed = client.list_tokens(request).await.map_err(said)?;
    let found = listed.into_inner().tokens.into_iter().next();
    found.with_context(|| {
        format!("tenant {tenant} has no activation code {id}: `wherry admin token list {tenant}` shows all")
    })
}

fn describe(token: wire::Token) -> Value {
    json!({
        "AccessTokenId": token.id,
        "Name": token.name,
        "Description": token.description,
        "Status": token.status,
        "Registered": token.registered,
        "Count": token.count,
        "Days": token.days,
        "Created": token.created,
    })
}
