//! Users of an account. A user may do what the policies attached to it allow; the account itself may do everything.

use domain::policy::is_user_name;
use domain::{TenantId, Timestamp, UserId};

use crate::row::parse;
use crate::{Store, StoreError};

/// Maximum number of policies that a user may have.
pub const MOST_POLICIES: usize = 20;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Id of the user.
    pub id: UserId,
    /// Name of the user, unique within the tenant.
    pub name: String,
    /// Names of the user's policies, sorted.
    pub policies: Vec<String>,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// Outcome of a request to create a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateUser {
    /// The user was created, without keys and policies.
    Created(User),
    /// Another user of the tenant has the name.
    NameTaken,
    /// The name breaks the rule: 1–64 letters, digits, `.`, `_` and `-`.
    InvalidName,
}

/// Outcome of a request to rename a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameUser {
    /// The user was renamed. Keys and policies stay.
    Renamed,
    /// Another user of the tenant has the name.
    NameTaken,
    /// The name breaks the rule.
    InvalidName,
    /// The tenant has no such user.
    NotFound,
}

/// Outcome of a request to delete a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteUser {
    /// The user was deleted, with its attachments and temporary keys.
    Deleted,
    /// The user has these keys, with which a client may still sign. They must be deleted first, one by one.
    HasKeys(Vec<String>),
    /// The tenant has no such user.
    NotFound,
}

/// Outcome of a request to attach a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachPolicy {
    /// The policy is attached, now or already before.
    Attached,
    /// The tenant has no such user.
    NoUser,
    /// The tenant has no such policy.
    NoPolicy,
    /// The user would have more than [`MOST_POLICIES`].
    TooMany,
}

impl Store {
    /// Creates a user.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_user(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<CreateUser, StoreError> {
        if !is_user_name(name) {
            return Ok(CreateUser::InvalidName);
        }
        let id = UserId::generate();
        let created_at = sqlx::query_scalar!(
            "insert into ram_user (id, tenant, name) values ($1, $2, $3)
             on conflict on constraint ram_user_name do nothing returning created_at",
            id.as_str(),
            tenant.as_str(),
            name
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match created_at {
            Some(created_at) => CreateUser::Created(User {
                id,
                name: name.to_owned(),
                policies: Vec::new(),
                created_at: created_at.into(),
            }),
            None => CreateUser::NameTaken,
        })
    }

    /// Returns the tenant's users, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn users(&self, tenant: &TenantId) -> Result<Vec<User>, StoreError> {
        self.users_named(tenant, None).await
    }

    /// Returns the tenant's user of this name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn user(&self, tenant: &TenantId, name: &str) -> Result<Option<User>, StoreError> {
        Ok(self.users_named(tenant, Some(name)).await?.pop())
    }

    async fn users_named(
        &self,
        tenant: &TenantId,
        name: Option<&str>,
    ) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query!(
            r#"select id, name, created_at,
                      array(select policy from ram_attachment a
                            where a.tenant = u.tenant and a.user_id = u.id order by policy) as "policies!"
               from ram_user u where tenant = $1 and ($2::text is null or name = $2) order by name limit 10000"#,
            tenant.as_str(),
            name
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(User {
                    id: parse("ram_user.id", &row.id)?,
                    name: row.name,
                    policies: row.policies,
                    created_at: row.created_at.into(),
                })
            })
            .collect()
    }

    /// Gives a user another name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn rename_user(
        &self,
        tenant: &TenantId,
        name: &str,
        new_name: &str,
    ) -> Result<RenameUser, StoreError> {
        if !is_user_name(new_name) {
            return Ok(RenameUser::InvalidName);
        }
        let updated = sqlx::query!(
            "update ram_user set name = $3 where tenant = $1 and name = $2",
            tenant.as_str(),
            name,
            new_name
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::from);
        match updated {
            Ok(updated) if updated.rows_affected() == 1 => Ok(RenameUser::Renamed),
            Ok(_) => Ok(RenameUser::NotFound),
            Err(error) if error.violates("ram_user_name") => Ok(RenameUser::NameTaken),
            Err(error) => Err(error),
        }
    }

    /// Deletes a user that has no keys but temporary ones.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_user(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<DeleteUser, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // A transaction that creates a key refers to this row, and waits.
        let Some(id) = sqlx::query_scalar!(
            "select id from ram_user where tenant = $1 and name = $2 for update",
            tenant.as_str(),
            name
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(DeleteUser::NotFound);
        };
        let keys = sqlx::query_scalar!(
            "select id from access_key where tenant = $1 and user_id = $2 and expires_at is null order by created_at, id",
            tenant.as_str(),
            id
        )
        .fetch_all(&mut *transaction)
        .await?;
        if !keys.is_empty() {
            return Ok(DeleteUser::HasKeys(keys));
        }
        sqlx::query!("delete from ram_user where id = $1", id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(DeleteUser::Deleted)
    }

    /// Attaches a policy to a user. Gateways notice within the lifetime of their cached keys.
    ///
    /// # Errors
    /// The database fails.
    pub async fn attach_policy(
        &self,
        tenant: &TenantId,
        user: &str,
        policy: &str,
    ) -> Result<AttachPolicy, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // The row is locked, so that two transactions can't pass the limit together.
        let Some(user_id) = sqlx::query_scalar!(
            "select id from ram_user where tenant = $1 and name = $2 for update",
            tenant.as_str(),
            user
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(AttachPolicy::NoUser);
        };
        let policy_exists = sqlx::query_scalar!(
            "select name from ram_policy where tenant = $1 and name = $2 for key share",
            tenant.as_str(),
            policy
        )
        .fetch_optional(&mut *transaction)
        .await?
        .is_some();
        if !policy_exists {
            return Ok(AttachPolicy::NoPolicy);
        }
        sqlx::query!(
            "insert into ram_attachment (tenant, user_id, policy) values ($1, $2, $3) on conflict do nothing",
            tenant.as_str(),
            user_id,
            policy
        )
        .execute(&mut *transaction)
        .await?;
        let attached = sqlx::query_scalar!(
            r#"select count(*) as "count!" from ram_attachment where tenant = $1 and user_id = $2"#,
            tenant.as_str(),
            user_id
        )
        .fetch_one(&mut *transaction)
        .await?;
        if usize::try_from(attached).unwrap_or(usize::MAX) > MOST_POLICIES {
            return Ok(AttachPolicy::TooMany);
        }
        transaction.commit().await?;
        Ok(AttachPolicy::Attached)
    }

    /// Detaches a policy from a user; false if it was not attached.
    ///
    /// # Errors
    /// The database fails.
    pub async fn detach_policy(
        &self,
        tenant: &TenantId,
        user: &str,
        policy: &str,
    ) -> Result<bool, StoreError> {
        let deleted = sqlx::query!(
            "delete from ram_attachment a using ram_user u
             where a.tenant = $1 and a.policy = $3 and u.tenant = $1 and u.name = $2 and a.user_id = u.id",
            tenant.as_str(),
            user,
            policy
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected() == 1)
    }
}
