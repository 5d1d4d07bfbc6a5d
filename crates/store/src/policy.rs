//! Policies of an account. A policy is parsed before it is stored, so that no call is decided by an unreadable text.

use domain::policy::{InvalidPolicy, Policy, is_policy_name};
use domain::{TenantId, Timestamp};

use crate::{Store, StoreError};

/// A policy as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Name of the policy, unique within the tenant.
    pub name: String,
    /// Text of the policy, unchanged.
    pub document: String,
    /// Names of the users that the policy is attached to, sorted.
    pub users: Vec<String>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time at which the text was last written.
    pub updated_at: Timestamp,
}

/// Outcome of a request to create a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreatePolicy {
    /// The policy was created.
    Created,
    /// Another policy of the tenant has the name.
    NameTaken,
    /// The name breaks the rule: 1–128 letters, digits and `-`.
    InvalidName,
    /// The text is not a policy; the sentence gives the reason.
    InvalidDocument(InvalidPolicy),
}

/// Outcome of a request to replace a policy's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// The text was replaced. Gateways notice within the lifetime of their cached keys.
    Updated,
    /// The text is not a policy; the sentence gives the reason.
    InvalidDocument(InvalidPolicy),
    /// The tenant has no such policy.
    NotFound,
}

/// Outcome of a request to delete a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletePolicy {
    /// The policy was deleted.
    Deleted,
    /// The policy is attached to these users. Without a Deny of the policy they could do more.
    Attached(Vec<String>),
    /// The tenant has no such policy.
    NotFound,
}

impl Store {
    /// Creates a policy.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_policy(
        &self,
        tenant: &TenantId,
        name: &str,
        document: &str,
    ) -> Result<CreatePolicy, StoreError> {
        if !is_policy_name(name) {
            return Ok(CreatePolicy::InvalidName);
        }
        if let Err(invalid) = Policy::parse(document) {
            return Ok(CreatePolicy::InvalidDocument(invalid));
        }
        let inserted = sqlx::query!(
            "insert into ram_policy (tenant, name, document) values ($1, $2, $3) on conflict do nothing",
            tenant.as_str(),
            name,
            document
        )
        .execute(&self.pool)
        .await?;
        Ok(if inserted.rows_affected() == 1 {
            CreatePolicy::Created
        } else {
            CreatePolicy::NameTaken
        })
    }

    /// Returns the tenant's policies, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn policies(&self, tenant: &TenantId) -> Result<Vec<StoredPolicy>, StoreError> {
        self.policies_named(tenant, None).await
    }

    /// Returns the tenant's policy of this name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn policy(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<StoredPolicy>, StoreError> {
        Ok(self.policies_named(tenant, Some(name)).await?.pop())
    }

    async fn policies_named(
        &self,
        tenant: &TenantId,
        name: Option<&str>,
    ) -> Result<Vec<StoredPolicy>, StoreError> {
        let rows = sqlx::query!(
            r#"select name, document, created_at, updated_at,
                      array(select u.name from ram_attachment a join ram_user u on u.tenant = a.tenant and u.id = a.user_id
                            where a.tenant = p.tenant and a.policy = p.name order by u.name) as "users!"
               from ram_policy p where tenant = $1 and ($2::text is null or name = $2) order by name limit 10000"#,
            tenant.as_str(),
            name
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| StoredPolicy {
                name: row.name,
                document: row.document,
                users: row.users,
                created_at: row.created_at.into(),
                updated_at: row.updated_at.into(),
            })
            .collect())
    }

    /// Replaces the text of a policy, for all users that have the policy.
    ///
    /// # Errors
    /// The database fails.
    pub async fn update_policy(
        &self,
        tenant: &TenantId,
        name: &str,
        document: &str,
    ) -> Result<UpdatePolicy, StoreError> {
        if let Err(invalid) = Policy::parse(document) {
            return Ok(UpdatePolicy::InvalidDocument(invalid));
        }
        let updated = sqlx::query!(
            "update ram_policy set document = $3, updated_at = now() where tenant = $1 and name = $2",
            tenant.as_str(),
            name,
            document
        )
        .execute(&self.pool)
        .await?;
        Ok(if updated.rows_affected() == 1 {
            UpdatePolicy::Updated
        } else {
            UpdatePolicy::NotFound
        })
    }

    /// Deletes a policy that is attached to no user.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_policy(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<DeletePolicy, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // A transaction that attaches the policy locks this row too, and waits.
        let exists = sqlx::query_scalar!(
            "select name from ram_policy where tenant = $1 and name = $2 for update",
            tenant.as_str(),
            name
        )
        .fetch_optional(&mut *transaction)
        .await?
        .is_some();
        if !exists {
            return Ok(DeletePolicy::NotFound);
        }
        let users = sqlx::query_scalar!(
            "select u.name from ram_attachment a join ram_user u on u.tenant = a.tenant and u.id = a.user_id
             where a.tenant = $1 and a.policy = $2 order by u.name",
            tenant.as_str(),
            name
        )
        .fetch_all(&mut *transaction)
        .await?;
        if !users.is_empty() {
            return Ok(DeletePolicy::Attached(users));
        }
        sqlx::query!(
            "delete from ram_policy where tenant = $1 and name = $2",
            tenant.as_str(),
            name
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(DeletePolicy::Deleted)
    }
}
