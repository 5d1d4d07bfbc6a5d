//! The first tenant of a data directory, and `bootstrap.json`, from which scripts read how to call.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use smc::model::{CreateAccessToken, ListAccessTokens};
use store::Store;
use store::tenant::{CreateTenant, Quotas};

use super::directory::Directory;
use super::in_directory;

pub(super) const FILE: &str = "bootstrap.json";

/// Name of the first tenant, and of its activation code.
const TENANT: &str = "default";
const TOKEN: &str = "wherry-up";

/// Agents that may register with the activation code, and days that it is valid: the most that the API takes.
const TOKEN_COUNT: i32 = 1000;
const TOKEN_DAYS: i32 = 90;

/// Wait for the gateway's first answer.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Contents of `bootstrap.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bootstrap {
    pub(super) endpoint: String,
    pub(super) agent_endpoint: String,
    pub(super) region_id: String,
    pub(super) access_key_id: String,
    pub(super) access_key_secret: String,
    pub(super) activation_code: String,
    pub(super) metrics_url: String,
    /// Directory of the images, for the command line on this machine. Files of earlier versions have none.
    #[serde(default)]
    pub(super) image_store: PathBuf,
}

/// Addresses that this start listens on.
pub(super) struct Endpoints {
    pub(super) api: SocketAddr,
    pub(super) agents: SocketAddr,
    pub(super) metrics_url: String,
    pub(super) region: String,
    pub(super) image_store: PathBuf,
}

impl Bootstrap {
    /// Reads the file that the last start has written.
    pub(super) fn read(directory: &Directory) -> anyhow::Result<Option<Self>> {
        let path = directory.path(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let read = serde_json::from_str(&text);
                Ok(Some(read.with_context(|| {
                    format!("{} is damaged: move it away", path.display())
                })?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => in_directory(Err(error), "read", &path),
        }
    }

    pub(super) fn api(&self) -> Option<SocketAddr> {
        address_of(&self.endpoint)
    }

    pub(super) fn agents(&self) -> Option<SocketAddr> {
        address_of(&self.agent_endpoint)
    }

    pub(super) fn health(&self) -> Option<SocketAddr> {
        address_of(self.metrics_url.strip_suffix("/metrics")?)
    }
}

fn address_of(url: &str) -> Option<SocketAddr> {
    url.split_once("://")?.1.parse().ok()
}

/// Makes what is missing, and writes the file.
pub(super) async fn prepare(
    directory: &Directory,
    store: &Store,
    before: Option<Bootstrap>,
    endpoints: &Endpoints,
) -> anyhow::Result<Bootstrap> {
    let (access_key_id, access_key_secret) = match &before {
        Some(before) if has_valid_key(store, before).await? => (
            before.access_key_id.clone(),
            before.access_key_secret.clone(),
        ),
        _ => new_key(store).await?,
    };
    let mut bootstrap = Bootstrap {
        endpoint: format!("http://{}", endpoints.api),
        agent_endpoint: format!("https://{}", endpoints.agents),
        region_id: endpoints.region.clone(),
        access_key_id,
        access_key_secret,
        activation_code: before
            .map(|before| before.activation_code)
            .unwrap_or_default(),
        metrics_url: endpoints.metrics_url.clone(),
        image_store: endpoints.image_store.clone(),
    };
    let credentials = smc::Credentials::new(
        bootstrap.access_key_id.clone(),
        bootstrap.access_key_secret.clone(),
    );
    let client = smc::Client::new(&bootstrap.endpoint, credentials, &bootstrap.region_id)?;
    if bootstrap.activation_code.is_empty() || !has_valid_token(&client).await? {
        let request = CreateAccessToken {
            name: Some(TOKEN.to_owned()),
            count: Some(TOKEN_COUNT),
            time_to_live_in_days: Some(TOKEN_DAYS),
            ..CreateAccessToken::default()
        };
        let token = client.call(&request).await?;
        bootstrap.activation_code = token.answer.access_token_code;
    }
    directory.write_private(
        FILE,
        &format!("{}\n", serde_json::to_string_pretty(&bootstrap)?),
    )?;
    Ok(bootstrap)
}

/// Returns false if the operator has switched the key off, or if the database is another one than at the last start.
async fn has_valid_key(store: &Store, before: &Bootstrap) -> anyhow::Result<bool> {
    let key = store.access_key(&before.access_key_id).await?;
    Ok(key.is_some_and(|key| key.active && key.secret == before.access_key_secret))
}

/// A key of the first tenant, which may be there already.
async fn new_key(store: &Store) -> anyhow::Result<(String, String)> {
    let tenant = match store.create_tenant(TENANT, &Quotas::default()).await? {
        CreateTenant::Created(tenant) => tenant,
        CreateTenant::NameTaken => store
            .tenant_named(TENANT)
            .await?
            .context("the first tenant was removed just now: start again")?,
    };
    let key = store.create_access_key(&tenant.id).await?;
    Ok((key.id.clone(), key.secret.clone()))
}

async fn has_valid_token(client: &smc::Client) -> anyhow::Result<bool> {
    let request = ListAccessTokens {
        name: Some(TOKEN.to_owned()),
        ..ListAccessTokens::default()
    };
    for _ in 0..TRIES {
        match client.call(&request).await {
            Ok(listed) => {
                let mut tokens = listed.access_tokens.iter();
                return Ok(tokens.any(|token| token.status == "activated"));
            }
            Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the gateway does not answer")
}
