//! Policies of a tenant.

use domain::policy::InvalidPolicy;
use proto::admin as wire;
use store::Store;
use store::policy::{CreatePolicy, DeletePolicy, StoredPolicy, UpdatePolicy};
use store::tenant::Tenant;
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed};

pub(super) fn not_found(tenant: &str, name: &str) -> Status {
    Status::not_found(format!(
        "tenant {tenant} has no policy {name:?}: `wherry admin policy list {tenant}` shows all"
    ))
}

pub(super) fn invalid(why: &InvalidPolicy) -> Status {
    Status::invalid_argument(format!("the policy can't be used: {why}"))
}

pub(super) async fn create(
    store: &Store,
    request: wire::CreatePolicyRequest,
) -> Result<Changed<wire::Policy>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let created = store
        .create_policy(&tenant.id, &request.name, &request.document)
        .await;
    match created.map_err(failed)? {
        CreatePolicy::Created => stored(store, tenant, &request.name).await,
        CreatePolicy::NameTaken => Err(Status::already_exists(format!(
            "tenant {} has a policy {} already: `wherry admin policy update` changes it",
            tenant.name, request.name
        ))),
        CreatePolicy::InvalidName => Err(Status::invalid_argument(
            "a policy's name has 1 to 128 letters, digits and hyphens",
        )),
        CreatePolicy::InvalidDocument(why) => Err(invalid(&why)),
    }
}

pub(super) async fn list(
    store: &Store,
    request: wire::ListPoliciesRequest,
) -> Result<wire::ListPoliciesResponse, Status> {
    let tenant = named(store, &request.tenant).await?;
    let policies = store.policies(&tenant.id).await.map_err(failed)?;
    Ok(wire::ListPoliciesResponse {
        policies: policies.into_iter().map(described).collect(),
    })
}

pub(super) async fn update(
    store: &Store,
    request: wire::UpdatePolicyRequest,
) -> Result<Changed<wire::Policy>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let updated = store
        .update_policy(&tenant.id, &request.name, &request.document)
        .await;
    match updated.map_err(failed)? {
        UpdatePolicy::Updated => stored(store, tenant, &request.name).await,
        UpdatePolicy::InvalidDocument(why) => Err(invalid(&why)),
        UpdatePolicy::NotFound => Err(not_found(&tenant.name, &request.name)),
    }
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeletePolicyRequest,
) -> Result<Changed<wire::DeletePolicyResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let deleted = store.delete_policy(&tenant.id, &request.name).await;
    match deleted.map_err(failed)? {
        DeletePolicy::Deleted => Ok(Changed::new(tenant.id, wire::DeletePolicyResponse {})),
        DeletePolicy::Attached(users) => Err(Status::failed_precondition(format!(
            "policy {} is attached to {}: detach it first",
            request.name,
            users.join(", ")
        ))),
        DeletePolicy::NotFound => Err(not_found(&tenant.name, &request.name)),
    }
}

async fn stored(
    store: &Store,
    tenant: Tenant,
    name: &str,
) -> Result<Changed<wire::Policy>, Status> {
    let policy = store.policy(&tenant.id, name).await.map_err(failed)?;
    let policy = policy.ok_or_else(|| not_found(&tenant.name, name))?;
    Ok(Changed::new(tenant.id, described(policy)))
}

fn described(policy: StoredPolicy) -> wire::Policy {
    wire::Policy {
        name: policy.name,
        document: policy.document,
        users: policy.users,
        created: policy.created_at.to_string(),
        updated: policy.updated_at.to_string(),
    }
}
