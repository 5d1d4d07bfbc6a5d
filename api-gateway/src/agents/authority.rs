//! The deployment's certificate authority: made by the first gateway, kept sealed in Postgres, the same for all.

use pki::{Authority, DEPLOYMENT_VALIDITY};
use serde::{Deserialize, Serialize};
use store::Store;

use super::Error;

/// Name of the authority among the deployment's secrets.
const SECRET: &str = "authority";

#[derive(Serialize, Deserialize)]
struct Kept {
    certificate_pem: String,
    key_pem: String,
}

/// Returns the deployment's authority. Gateways that start at the same moment on an empty database get the same one.
///
/// # Errors
/// [`Error::Authority`] when Postgres does not answer, or the secret was sealed with another key.
pub async fn authority(store: &Store) -> Result<Authority, Error> {
    let kept = match store.deployment_secret(SECRET).await.map_err(unread)? {
        Some(kept) => kept,
        None => {
            let made =
                Authority::generate("Wherry deployment", DEPLOYMENT_VALIDITY).map_err(unread)?;
            let candidate = serde_json::to_vec(&Kept {
                certificate_pem: made.certificate_pem().to_owned(),
                key_pem: made.key_pem(),
            })
            .map_err(unread)?;
            store
                .keep_deployment_secret(SECRET, &candidate)
                .await
                .map_err(unread)?
        }
    };
    let kept: Kept = serde_json::from_slice(&kept).map_err(unread)?;
    Authority::from_pem(&kept.certificate_pem, &kept.key_pem).map_err(unread)
}

fn unread(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Authority(Box::new(error))
}
