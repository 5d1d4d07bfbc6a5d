//! Access keys.

use proto::admin as wire;
use store::Store;
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed};

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
    let key = store.create_access_key(&tenant.id).await.map_err(failed)?;
    let message = wire::NewKey {
        id: key.id.clone(),
        secret: key.secret,
    };
    Ok(Changed::new(tenant.id, message).with(key.id))
}

pub(super) async fn list(
    store: &Store,
    request: wire::ListKeysRequest,
) -> Result<wire::ListKeysResponse, Status> {
    let tenant = named(store, &request.tenant).await?;
    let keys = store.access_keys(&tenant.id).await.map_err(failed)?;
    let keys = keys.into_iter().map(|key| wire::Key {
        id: key.id,
        is_active: key.active,
        created: key.created_at.to_string(),
    });
    Ok(wire::ListKeysResponse {
        keys: keys.collect(),
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
    let message = wire::Key {
        id: key.id,
        is_active: key.active,
        created: key.created_at.to_string(),
    };
    Ok(Changed::new(tenant.id, message))
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
