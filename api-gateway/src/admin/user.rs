//! Users of a tenant.

use proto::admin as wire;
use store::Store;
use store::user::{AttachPolicy, CreateUser, DeleteUser, MOST_POLICIES, RenameUser, User};
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed, policy};

pub(super) fn not_found(tenant: &str, name: &str) -> Status {
    Status::not_found(format!(
        "tenant {tenant} has no user {name:?}: `wherry admin user list {tenant}` shows all"
    ))
}

fn name_taken(tenant: &str, name: &str) -> Status {
    Status::already_exists(format!("tenant {tenant} has a user {name} already"))
}

fn invalid_name() -> Status {
    Status::invalid_argument(
        "a user's name has 1 to 64 letters, digits, dots, hyphens and underscores",
    )
}

pub(super) async fn create(
    store: &Store,
    request: wire::CreateUserRequest,
) -> Result<Changed<wire::User>, Status> {
    let tenant = named(store, &request.tenant).await?;
    match store
        .create_user(&tenant.id, &request.name)
        .await
        .map_err(failed)?
    {
        CreateUser::Created(user) => {
            let id = user.id.to_string();
            Ok(Changed::new(tenant.id, described(user)).with(id))
        }
        CreateUser::NameTaken => Err(name_taken(&tenant.name, &request.name)),
        CreateUser::InvalidName => Err(invalid_name()),
    }
}

pub(super) async fn list(
    store: &Store,
    request: wire::ListUsersRequest,
) -> Result<wire::ListUsersResponse, Status> {
    let tenant = named(store, &request.tenant).await?;
    let users = store.users(&tenant.id).await.map_err(failed)?;
    Ok(wire::ListUsersResponse {
        users: users.into_iter().map(described).collect(),
    })
}

/// Detaches before it attaches, so that a user with as many policies as there may be can change one for another.
pub(super) async fn update(
    store: &Store,
    request: wire::UpdateUserRequest,
) -> Result<Changed<wire::User>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let mut name = request.name;
    let found = store.user(&tenant.id, &name).await.map_err(failed)?;
    found.ok_or_else(|| not_found(&tenant.name, &name))?;
    for policy in &request.detach {
        let was_attached = store.detach_policy(&tenant.id, &name, policy).await;
        if !was_attached.map_err(failed)? {
            return Err(Status::not_found(format!(
                "policy {policy:?} is not attached to user {name}"
            )));
        }
    }
    for policy in &request.attach {
        let attached = store.attach_policy(&tenant.id, &name, policy).await;
        match attached.map_err(failed)? {
            AttachPolicy::Attached => {}
            AttachPolicy::NoUser => return Err(not_found(&tenant.name, &name)),
            AttachPolicy::NoPolicy => return Err(policy::not_found(&tenant.name, policy)),
            AttachPolicy::TooMany => {
                return Err(Status::failed_precondition(format!(
                    "a user has {MOST_POLICIES} policies at most: detach one first"
                )));
            }
        }
    }
    if let Some(new_name) = request.new_name {
        let renamed = store.rename_user(&tenant.id, &name, &new_name).await;
        match renamed.map_err(failed)? {
            RenameUser::Renamed => name = new_name,
            RenameUser::NameTaken => return Err(name_taken(&tenant.name, &new_name)),
            RenameUser::InvalidName => return Err(invalid_name()),
            RenameUser::NotFound => return Err(not_found(&tenant.name, &name)),
        }
    }
    let user = store.user(&tenant.id, &name).await.map_err(failed)?;
    let user = user.ok_or_else(|| not_found(&tenant.name, &name))?;
    Ok(Changed::new(tenant.id, described(user)))
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeleteUserRequest,
) -> Result<Changed<wire::DeleteUserResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let deleted = store.delete_user(&tenant.id, &request.name).await;
    match deleted.map_err(failed)? {
        DeleteUser::Deleted => Ok(Changed::new(tenant.id, wire::DeleteUserResponse {})),
        DeleteUser::HasKeys(keys) => Err(Status::failed_precondition(format!(
            "user {} has keys: delete {} first",
            request.name,
            keys.join(", ")
        ))),
        DeleteUser::NotFound => Err(not_found(&tenant.name, &request.name)),
    }
}

fn described(user: User) -> wire::User {
    wire::User {
        id: user.id.to_string(),
        name: user.name,
        policies: user.policies,
        created: user.created_at.to_string(),
    }
}
