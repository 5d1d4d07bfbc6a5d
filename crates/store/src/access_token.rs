//! Activation codes for the registration of agents. Only the SHA-256 of a code's secret is kept.

use domain::name::Name;
use domain::{AccessTokenId, TenantId, Timestamp};

use crate::row::parse;
use crate::{Store, StoreError};

/// Default number of agents that may register with a code.
pub const DEFAULT_USES: i32 = 100;
/// Default number of days that a code is valid.
pub const DEFAULT_DAYS: i32 = 30;

/// An activation code to be created.
#[derive(Debug, Clone, Copy)]
pub struct NewAccessToken<'a> {
    /// Public name of the code.
    pub id: &'a AccessTokenId,
    /// Name of the code for people.
    pub name: &'a Name,
    /// Description of the code.
    pub description: &'a str,
    /// Number of agents that may register. The default is [`DEFAULT_USES`], or fewer if the tenant's quota is lower.
    pub max_count: Option<i32>,
    /// Number of days that the code is valid. The default is [`DEFAULT_DAYS`], or fewer if the tenant's quota is lower.
    pub valid_days: Option<i32>,
    /// SHA-256 of the code's secret.
    pub code_hash: &'a [u8],
}

/// Outcome of a request for an activation code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateAccessToken {
    /// The code was created.
    Created,
    /// A quota of the tenant refuses the code.
    Refused(AccessTokenQuota),
}

/// A tenant's quota for activation codes, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessTokenQuota {
    /// Number of codes.
    Codes(i32),
    /// Number of agents with one code.
    Uses(i32),
    /// Days of validity.
    Days(i32),
}

/// The state of an activation code, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessTokenStatus {
    /// Agents can register with the code.
    Activated,
    /// The code was disabled or is used up.
    Unactivated,
    /// The code's validity is over.
    Expired,
}

impl AccessTokenStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Activated, Self::Unactivated, Self::Expired];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activated => "activated",
            Self::Unactivated => "unactivated",
            Self::Expired => "expired",
        }
    }
}

/// An activation code in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// Public name of the code.
    pub id: AccessTokenId,
    /// Name of the code for people.
    pub name: String,
    /// Description of the code.
    pub description: String,
    /// Number of agents that may register with the code.
    pub max_count: i32,
    /// Number of agents that have registered.
    pub registered: i32,
    /// Number of days that the code is valid, from its creation.
    pub valid_days: i32,
    /// State of the code.
    pub status: AccessTokenStatus,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// A filter for the list of activation codes; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct AccessTokenFilter {
    /// Ids of the codes.
    pub ids: Option<Vec<String>>,
    /// Name of the code.
    pub name: Option<String>,
    /// State of the code.
    pub status: Option<AccessTokenStatus>,
}

impl Store {
    /// Inserts a new activation code if the tenant's quotas allow it. The tenant's row is locked, so that two calls
    /// can't both take the last place.
    pub async fn create_access_token(
        &self,
        tenant: &TenantId,
        token: NewAccessToken<'_>,
    ) -> Result<CreateAccessToken, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        let quotas = sqlx::query!(
            "select max_access_tokens, max_access_token_uses, max_access_token_days from tenant where id = $1
             for no key update",
            tenant.as_str()
        )
        .fetch_one(&mut *transaction)
        .await?;
        let uses = DEFAULT_USES.min(quotas.max_access_token_uses);
        let uses = token.max_count.unwrap_or(uses);
        let days = DEFAULT_DAYS.min(quotas.max_access_token_days);
        let days = token.valid_days.unwrap_or(days);
        if uses > quotas.max_access_token_uses {
            let quota = AccessTokenQuota::Uses(quotas.max_access_token_uses);
            return Ok(CreateAccessToken::Refused(quota));
        }
        if days > quotas.max_access_token_days {
            let quota = AccessTokenQuota::Days(quotas.max_access_token_days);
            return Ok(CreateAccessToken::Refused(quota));
        }
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from access_token where tenant = $1"#,
            tenant.as_str()
        )
        .fetch_one(&mut *transaction)
        .await?;
        if count >= i64::from(quotas.max_access_tokens) {
            let quota = AccessTokenQuota::Codes(quotas.max_access_tokens);
            return Ok(CreateAccessToken::Refused(quota));
        }
        sqlx::query!(
            "insert into access_token (id, tenant, name, description, code_hash, max_count, valid_days, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(days => $7))",
            token.id.as_str(),
            tenant.as_str(),
            token.name.as_str(),
            token.description,
            token.code_hash,
            uses,
            days,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(CreateAccessToken::Created)
    }

    /// Returns a page of the tenant's activation codes, newest first, and their number on all pages. A quota bounds the
    /// codes, so pages are read by offset.
    pub async fn access_tokens(
        &self,
        tenant: &TenantId,
        filter: &AccessTokenFilter,
        page: crate::Page,
    ) -> Result<crate::Listed<AccessToken>, StoreError> {
        let rows = sqlx::query!(
            r#"
            with token as materialized (
                select * from (
                    select *, case
                        when expires_at <= now() then 'expired'
                        when disabled_at is not null or registered >= max_count then 'unactivated'
                        else 'activated' end as status
                    from access_token where tenant = $1
                ) as own
                where ($2::text[] is null or id = any($2)) and ($3::text is null or name = $3)
                  and ($4::text is null or status = $4)
            )
            select total as "total!", id as "id?", name as "name?", description as "description?", max_count as "max_count?",
                registered as "registered?", valid_days as "valid_days?", created_at as "created_at?", status as "status?"
            from (select count(*) as total from token) as counted
            left join (select * from token order by created_at desc, id desc limit $5 offset $6) as page on true
            order by created_at desc, id desc
            "#,
            tenant.as_str(),
            filter.ids.as_deref(),
            filter.name,
            filter.status.map(AccessTokenStatus::as_str),
            page.limit(),
            page.offset(),
        )
        .fetch_all(&mut *self.planning_connection_as(tenant).await?)
        .await?;
        let total = rows.first().map_or(0, |row| row.total);
        let mut tokens = Vec::new();
        for row in rows {
            // A page behind the last one is one row without a code.
            let (Some(id), Some(created_at)) = (row.id, row.created_at) else {
                continue;
            };
            tokens.push(AccessToken {
                id: parse("access_token.id", &id)?,
                name: row.name.unwrap_or_default(),
                description: row.description.unwrap_or_default(),
                max_count: row.max_count.unwrap_or_default(),
                registered: row.registered.unwrap_or_default(),
                valid_days: row.valid_days.unwrap_or_default(),
                status: AccessTokenStatus::ALL
                    .into_iter()
                    .find(|status| Some(status.as_str()) == row.status.as_deref())
                    .unwrap_or(AccessTokenStatus::Unactivated),
                created_at: created_at.into(),
            });
        }
        Ok(crate::Listed {
            rows: tokens,
            total,
        })
    }

    /// Refuses further registrations with the code. Agents that have registered stay. False if the tenant has no such
    /// code.
    pub async fn disable_access_token(
        &self,
        tenant: &TenantId,
        id: &AccessTokenId,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "update access_token set disabled_at = coalesce(disabled_at, now()) where tenant = $1 and id = $2",
            tenant.as_str(),
            id.as_str()
        )
        .execute(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Removes the code. Agents that registered with it stay. False if the tenant has no such code.
    pub async fn delete_access_token(
        &self,
        tenant: &TenantId,
        id: &AccessTokenId,
    ) -> Result<bool, StoreError> {
        let deleted = sqlx::query!(
            "delete from access_token where tenant = $1 and id = $2",
            tenant.as_str(),
            id.as_str()
        )
        .execute(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(deleted.rows_affected() == 1)
    }
}
