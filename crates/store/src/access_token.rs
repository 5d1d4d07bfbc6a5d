//! Activation codes, with which agents register. Only the SHA-256 of a code's secret is kept.

use domain::name::Name;
use domain::{AccessTokenId, TenantId, Timestamp};

use crate::row::parse;
use crate::{Store, StoreError};

/// An activation code to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewAccessToken<'a> {
    /// Its public name.
    pub id: &'a AccessTokenId,
    /// What people call it.
    pub name: &'a Name,
    /// More about it.
    pub description: &'a str,
    /// How many agents may register with it.
    pub max_count: i32,
    /// How many days it is valid.
    pub valid_days: i32,
    /// SHA-256 of the code's secret.
    pub code_hash: &'a [u8],
}

/// The state of an activation code, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessTokenStatus {
    /// Agents can register with it.
    Activated,
    /// It was disabled, or used up.
    Unactivated,
    /// Its time is over.
    Expired,
}

impl AccessTokenStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Activated, Self::Unactivated, Self::Expired];

    /// As on the wire.
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
    /// Its public name.
    pub id: AccessTokenId,
    /// What people call it.
    pub name: String,
    /// More about it.
    pub description: String,
    /// How many agents may register with it.
    pub max_count: i32,
    /// How many have.
    pub registered: i32,
    /// How many days it is valid from its making.
    pub valid_days: i32,
    /// Its state.
    pub status: AccessTokenStatus,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which activation codes to list; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct AccessTokenFilter {
    /// One of these.
    pub ids: Option<Vec<String>>,
    /// Of this name.
    pub name: Option<String>,
    /// In this state.
    pub status: Option<AccessTokenStatus>,
}

impl Store {
    /// Keeps a new activation code.
    pub async fn create_access_token(
        &self,
        tenant: &TenantId,
        token: NewAccessToken<'_>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into access_token (id, tenant, name, description, code_hash, max_count, valid_days, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(days => $7))",
            token.id.as_str(),
            tenant.as_str(),
            token.name.as_str(),
            token.description,
            token.code_hash,
            token.max_count,
            token.valid_days,
        )
        .execute(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(())
    }

    /// The tenant's activation codes, newest first: at most `limit`, and how many there are.
    pub async fn access_tokens(
        &self,
        tenant: &TenantId,
        filter: &AccessTokenFilter,
        page: crate::Page,
    ) -> Result<crate::Listed<AccessToken>, StoreError> {
        let rows = sqlx::query!(
            r#"
            with token as (
                select *, case
                    when expires_at <= now() then 'expired'
                    when disabled_at is not null or registered >= max_count then 'unactivated'
                    else 'activated' end as status
                from access_token where tenant = $1
            )
            select id, name, description, max_count, registered, valid_days, created_at,
                status as "status!", count(*) over () as "total!"
            from token
            where ($2::text[] is null or id = any($2)) and ($3::text is null or name = $3)
              and ($4::text is null or status = $4)
            order by created_at desc, id desc limit $5 offset $6
            "#,
            tenant.as_str(),
            filter.ids.as_deref(),
            filter.name,
            filter.status.map(AccessTokenStatus::as_str),
            page.limit(),
            page.offset(),
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(crate::Listed {
            total: rows.first().map_or(0, |row| row.total),
            rows: rows
                .into_iter()
                .map(|row| {
                    Ok(AccessToken {
                        id: parse("access_token.id", &row.id)?,
                        name: row.name,
                        description: row.description,
                        max_count: row.max_count,
                        registered: row.registered,
                        valid_days: row.valid_days,
                        status: AccessTokenStatus::ALL
                            .into_iter()
                            .find(|status| status.as_str() == row.status)
                            .unwrap_or(AccessTokenStatus::Unactivated),
                        created_at: row.created_at.into(),
                    })
                })
                .collect::<Result<_, StoreError>>()?,
        })
    }

    /// Lets no more agents register with the code. Those that have stay. False if the tenant has no such code.
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
