//! `wherry admin token`: activation codes.

use clap::Subcommand;
use domain::name::Name;
use serde_json::json;
use store::Store;

use super::{Answer, named, show};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Makes an activation code. This is the only time at which it is shown.
    Create {
        /// Name of the tenant whose sources the agents become.
        tenant: String,
        /// What people call the code.
        #[arg(long)]
        name: Option<String>,
        /// Agents that may register with it.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=1000))]
        count: i32,
        /// Days that it is valid.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=90))]
        days: i32,
    },
}

impl TokenCommand {
    pub(super) async fn run(self, store: &Store) -> anyhow::Result<Answer> {
        let Self::Create {
            tenant,
            name,
            count,
            days,
        } = self;
        let tenant = named(store, &tenant).await?;
        let name = name.map(|name| Name::parse(&name)).transpose()?;
        let authority = api_gateway::agents::authority(store).await?;
        let new = api_gateway::NewToken {
            name: name.as_ref(),
            description: "",
            count,
            days,
        };
        let (id, code) =
            api_gateway::create_token(store, &authority.fingerprint(), &tenant.id, new).await?;
        Ok((
            json!({ "AccessTokenId": id, "AccessTokenCode": code }),
            show,
        ))
    }
}
