//! Tenants and their quotas.

use domain::{TenantId, Timestamp};

use crate::row::{parse, signed, unsigned};
use crate::{Store, StoreError};

/// Limits of a tenant (SMC API §5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Number of sources.
    pub max_sources: i32,
    /// Number of jobs, in whatever state.
    pub max_jobs: i32,
    /// Number of jobs that run at once; more jobs wait in the tenant's queue.
    pub max_running: i32,
    /// Number of workgroups.
    pub max_workgroups: i32,
    /// Number of sources in one workgroup.
    pub max_workgroup_sources: i32,
    /// Number of activation codes.
    pub max_access_tokens: i32,
    /// Number of agents that may register with one activation code.
    pub max_access_token_uses: i32,
    /// Maximum number of days that one activation code is valid.
    pub max_access_token_days: i32,
    /// Bytes that its copies and images may take in the stores; `None` for no bound.
    pub max_bytes: Option<u64>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            max_sources: 1000,
            max_jobs: 1000,
            max_running: 50,
            max_workgroups: 50,
            max_workgroup_sources: 50,
            max_access_tokens: 1000,
            max_access_token_uses: 1000,
            max_access_token_days: 90,
            max_bytes: None,
        }
    }
}

/// Number of calls that a tenant may make at each gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRates {
    /// Calls per second, of all operations together.
    pub account_per_second: u32,
    /// Calls per second, of any one operation.
    pub operation_per_second: u32,
}

impl Default for CallRates {
    fn default() -> Self {
        Self {
            account_per_second: 500,
            operation_per_second: 200,
        }
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Id of the tenant.
    pub id: TenantId,
    /// Name of the tenant, unique.
    pub name: String,
    /// Limits of the tenant.
    pub quotas: Quotas,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// Outcome of a request to create a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateTenant {
    /// The tenant was created.
    Created(Tenant),
    /// Another tenant has the name.
    NameTaken,
}

impl Store {
    /// Creates a tenant.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_tenant(
        &self,
        name: &str,
        quotas: &Quotas,
    ) -> Result<CreateTenant, StoreError> {
        let id = TenantId::generate();
        let created_at = sqlx::query_scalar!(
            "insert into tenant (id, name, max_sources, max_jobs, max_running, max_workgroups, max_workgroup_sources,
                 max_access_tokens, max_access_token_uses, max_access_token_days, max_bytes)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             on conflict (name) do nothing returning created_at",
            id.as_str(),
            name,
            quotas.max_sources,
            quotas.max_jobs,
            quotas.max_running,
            quotas.max_workgroups,
            quotas.max_workgroup_sources,
            quotas.max_access_tokens,
            quotas.max_access_token_uses,
            quotas.max_access_token_days,
            quotas.max_bytes.map(signed),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match created_at {
            Some(created_at) => CreateTenant::Created(Tenant {
                id,
                name: name.to_owned(),
                quotas: *quotas,
                created_at: created_at.into(),
            }),
            None => CreateTenant::NameTaken,
        })
    }

    /// Returns the number of calls that the tenant may make; the defaults for a tenant that is gone.
    ///
    /// # Errors
    /// The database fails.
    pub async fn call_rates(&self, id: &TenantId) -> Result<CallRates, StoreError> {
        let row = sqlx::query!(
            "select calls_per_second, operation_calls_per_second from tenant where id = $1",
            id.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(CallRates::default());
        };
        let rate = |calls: i32| u32::try_from(calls).unwrap_or_default();
        Ok(CallRates {
            account_per_second: rate(row.calls_per_second),
            operation_per_second: rate(row.operation_calls_per_second),
        })
    }

    /// Sets the number of calls that the tenant may make; `false` without such a tenant. Gateways follow within ten
    /// seconds.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_call_rates(
        &self,
        id: &TenantId,
        rates: CallRates,
    ) -> Result<bool, StoreError> {
        let rate = |calls: u32| i32::try_from(calls).unwrap_or(i32::MAX);
        let updated = sqlx::query!(
            "update tenant set calls_per_second = $2, operation_calls_per_second = $3 where id = $1",
            id.as_str(),
            rate(rates.account_per_second),
            rate(rates.operation_per_second),
        )
        .execute(&self.pool)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Returns every tenant, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let rows = sqlx::query!(
            "select id, name, max_sources, max_jobs, max_running, max_workgroups, max_workgroup_sources,
                 max_access_tokens, max_access_token_uses, max_access_token_days, max_bytes, created_at
             from tenant order by name limit 10000"
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Tenant {
                    id: parse("tenant.id", &row.id)?,
                    name: row.name,
                    quotas: Quotas {
                        max_sources: row.max_sources,
                        max_jobs: row.max_jobs,
                        max_running: row.max_running,
                        max_workgroups: row.max_workgroups,
                        max_workgroup_sources: row.max_workgroup_sources,
                        max_access_tokens: row.max_access_tokens,
                        max_access_token_uses: row.max_access_token_uses,
                        max_access_token_days: row.max_access_token_days,
                        max_bytes: max_bytes(row.max_bytes)?,
                    },
                    created_at: row.created_at.into(),
                })
            })
            .collect()
    }

    /// Returns the tenant with this name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tenant_named(&self, name: &str) -> Result<Option<Tenant>, StoreError> {
        let row = sqlx::query!(
            "select id, name, max_sources, max_jobs, max_running, max_workgroups, max_workgroup_sources,
                 max_access_tokens, max_access_token_uses, max_access_token_days, max_bytes, created_at
             from tenant where name = $1",
            name
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(Tenant {
                id: parse("tenant.id", &row.id)?,
                name: row.name,
                quotas: Quotas {
                    max_sources: row.max_sources,
                    max_jobs: row.max_jobs,
                    max_running: row.max_running,
                    max_workgroups: row.max_workgroups,
                    max_workgroup_sources: row.max_workgroup_sources,
                    max_access_tokens: row.max_access_tokens,
                    max_access_token_uses: row.max_access_token_uses,
                    max_access_token_days: row.max_access_token_days,
                    max_bytes: max_bytes(row.max_bytes)?,
                },
                created_at: row.created_at.into(),
            })
        })
        .transpose()
    }

    /// Sets a tenant's quotas; `false` without such a tenant. Jobs that run above a lowered limit continue, and none
    /// starts until it fits.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_quotas(&self, id: &TenantId, quotas: &Quotas) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "update tenant set max_sources = $2, max_jobs = $3, max_running = $4, max_workgroups = $5,
                 max_workgroup_sources = $6, max_access_tokens = $7, max_access_token_uses = $8, max_access_token_days = $9,
                 max_bytes = $10
             where id = $1",
            id.as_str(),
            quotas.max_sources,
            quotas.max_jobs,
            quotas.max_running,
            quotas.max_workgroups,
            quotas.max_workgroup_sources,
            quotas.max_access_tokens,
            quotas.max_access_token_uses,
            quotas.max_access_token_days,
            quotas.max_bytes.map(signed),
        )
        .execute(&self.pool)
        .await?;
        sqlx::query!("select pg_notify($1, '')", crate::job::QUEUE_CHANNEL)
            .execute(&self.pool)
            .await?;
        Ok(updated.rows_affected() == 1)
    }
}

fn max_bytes(column: Option<i64>) -> Result<Option<u64>, StoreError> {
    column
        .map(|bytes| unsigned("tenant.max_bytes", bytes))
        .transpose()
}
