//! Access keys.

use std::time::Duration;

use proto::admin as wire;
use store::Store;
use store::key::{AccessKey, CreateTemporaryKey, CreateUserKey, ListedKey, TEMPORARY_SECS};
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed, policy, user};

fn not_found(tenant: &str, id: &str) -> Status {
    Status::not_found(format!(
        "tenant {tenant} has no key {id}: `wherry admin key list {tenant}` shows all"
    ))
}

pub(super) async fn create(
    store: &Store,
    request: wire::CreateKeyRequest,
) -> Result<Changed<wire::NewKey>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let user = request.user.as_deref();
    let no_user = || user::not_found(&tenant.name, user.unwrap_or_default());
    let message = match (request.temporary_secs, user) {
        (Some(secs), user) => {
            let made = store
                .create_temporary_key(
                    &tenant.id,
                    user,
                    Duration::from_secs(secs),
                    request.session_policy.as_deref(),
                )
                .await;
            match made.map_err(failed)? {
                CreateTemporaryKey::Created(key) => wire::NewKey {
                    id: key.id,
                    secret: key.secret,
                    security_token: Some(key.security_token),
                    expires: Some(key.expires_at.to_string()),
                },
                CreateTemporaryKey::NoUser => return Err(no_user()),
                CreateTemporaryKey::InvalidLifetime => {
                    return Err(Status::invalid_argument(format!(
                        "a temporary key lives for {} to {} seconds",
                        TEMPORARY_SECS.start(),
                        TEMPORARY_SECS.end()
                    )));
                }
                CreateTemporaryKey::InvalidPolicy(why) => return Err(policy::invalid(&why)),
            }
        }
        (None, Some(user)) => {
            let made = store.create_user_key(&tenant.id, user).await;
            match made.map_err(failed)? {
                CreateUserKey::Created(key) => lasting(key),
                CreateUserKey::NoUser => return Err(no_user()),
            }
        }
        (None, None) => lasting(store.create_access_key(&tenant.id).await.map_err(failed)?),
    };
    let id = message.id.clone();
    Ok(Changed::new(tenant.id, message).with(id))
}

fn lasting(key: AccessKey) -> wire::NewKey {
    wire::NewKey {
        id: key.id,
        secret: key.secret,
        ..wire::NewKey::default()
    }
}

fn described(key: ListedKey) -> wire::Key {
    wire::Key {
        id: key.id,
        is_active: key.active,
        created: key.created_at.to_string(),
        user: key.user.unwrap_or_default(),
        expires: key.expires_at.map(|at| at.to_string()).unwrap_or_default(),
    }
}

pub(super) async fn list(
    store: &Store,
    request: wire::ListKeysRequest,
) -> Result<wire::ListKeysResponse, Status> {
    let tenant = named(store, &request.tenant).await?;
    let keys = store.access_keys(&tenant.id).await.map_err(failed)?;
    Ok(wire::ListKeysResponse {
        keys: keys.into_iter().map(described).collect(),
    })
}

pub(super) async fn update(
    store: &Store,
    request: wire::UpdateKeyRequest,
) -> Result<Changed<wire::Key>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let is_set = store
        .set_access_key_active(&tenant.id, &request.id, request.is_active)
        .await
        .map_err(failed)?;
    let keys = store.access_keys(&tenant.id).await.map_err(failed)?;
    let key = keys
        .into_iter()
        .find(|key| is_set && key.id == request.id)
        .ok_or_else(|| not_found(&tenant.name, &request.id))?;
    Ok(Changed::new(tenant.id, described(key)))
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeleteKeyRequest,
) -> Result<Changed<wire::DeleteKeyResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let is_gone = store
        .delete_access_key(&tenant.id, &request.id)
        .await
        .map_err(failed)?;
    if !is_gone {
        return Err(not_found(&tenant.name, &request.id));
    }
    Ok(Changed::new(tenant.id, wire::DeleteKeyResponse {}))
}
