//! The audit: callers and their changes.
//!
//! A row is written before its call is carried out and completed when the outcome is known. A row that was never
//! completed means that the call may have been carried out. Its outcome was not recorded, because the process died or
//! Postgres was unavailable.

use domain::{TenantId, Timestamp};
use sqlx::PgExecutor;

use crate::{Store, StoreError};

/// Maximum number of rows that one statement deletes.
const BATCH: i64 = 10_000;

/// Kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A tenant, with a signed call.
    Tenant,
    /// Anyone who may open the operators' socket.
    Operator,
    /// An agent without an identity, which registers.
    Agent,
}

impl Actor {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Operator => "operator",
            Self::Agent => "agent",
        }
    }
}

/// A call that is about to be carried out.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// The caller.
    pub actor: Actor,
    /// The tenant concerned, if it is known already.
    pub tenant: Option<&'a TenantId>,
    /// The key that signed the call, or the activation code's id; empty for operators.
    pub access_key: &'a str,
    /// The user of that key; empty for the tenant's own key.
    pub user_name: &'a str,
    /// Address that the call came from.
    pub origin: &'a str,
    /// Id of the call, as in the answer and in the log.
    pub request_id: &'a str,
    /// The operation called.
    pub operation: &'a str,
    /// Ids that the call names.
    pub resources: &'a [String],
    /// Outcome of a call that is refused before it is carried out.
    pub outcome: Option<&'a str>,
}

/// A row that waits for its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(i64);

/// A filter for the audit; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// A tenant's name or id.
    pub tenant: Option<String>,
    /// Earliest time.
    pub since: Option<Timestamp>,
    /// Time before which the call came.
    pub until: Option<Timestamp>,
    /// The operation called.
    pub operation: Option<String>,
    /// An access key's id, a user's name, or `operator`.
    pub principal: Option<String>,
    /// `OK`, a code, or `Unknown`.
    pub outcome: Option<String>,
}

/// One row of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position of the row in the order.
    pub seq: i64,
    /// Time of the call.
    pub at: Timestamp,
    /// `tenant`, `operator` or `agent`.
    pub actor: String,
    /// Name of the tenant concerned, or its id if the tenant is gone; empty for none.
    pub tenant: String,
    /// The key that signed the call.
    pub access_key: String,
    /// The user of that key.
    pub user_name: String,
    /// Address that the call came from.
    pub origin: String,
    /// Id of the call.
    pub request_id: String,
    /// The operation called.
    pub operation: String,
    /// Ids that the call named or created.
    pub resources: Vec<String>,
    /// `OK`, a code, or `Unknown`.
    pub outcome: String,
    /// Number of calls that the row stands for. It is more than one if calls were throttled.
    pub calls: i64,
}

impl Store {
    /// Records that a call is about to be carried out, or that it was refused.
    ///
    /// # Errors
    /// The database fails. The call must not be carried out then.
    pub async fn begin_audit(&self, entry: &NewEntry<'_>) -> Result<EntryId, StoreError> {
        Ok(insert(&self.pool, entry).await?)
    }

    /// Writes one row for `calls` calls with the same refusal.
    ///
    /// # Errors
    /// The database fails.
    pub async fn audit_refused(&self, entry: &NewEntry<'_>, calls: i64) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into audit (actor, tenant, access_key, user_name, origin, request_id, operation, outcome, calls)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            entry.actor.as_str(),
            entry.tenant.map(TenantId::as_str),
            entry.access_key,
            entry.user_name,
            entry.origin,
            entry.request_id,
            entry.operation,
            entry.outcome,
            calls,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes the outcome of the call and the ids that it created. `tenant` is the tenant concerned, if it was not
    /// known before.
    ///
    /// # Errors
    /// The database fails. The call must not be answered as done then.
    pub async fn end_audit(
        &self,
        id: EntryId,
        outcome: &str,
        tenant: Option<&TenantId>,
        made: &[String],
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "update audit set outcome = $2, tenant = coalesce(tenant, $3), resources = resources || $4
             where seq = $1 and outcome is null",
            id.0,
            outcome,
            tenant.map(TenantId::as_str),
            made,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns the rows behind `after`, oldest first, `limit` at most.
    ///
    /// # Errors
    /// The database fails.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query!(
            r#"
            select seq, at, actor, coalesce(tenant.name, audit.tenant, '') as "tenant!", access_key, user_name, origin, request_id,
                operation, resources, coalesce(outcome, 'Unknown') as "outcome!", calls
            from audit left join tenant on tenant.id = audit.tenant
            where seq > $1
              and ($2::text is null or audit.tenant = $2 or tenant.name = $2)
              and ($3::timestamptz is null or at >= $3) and ($4::timestamptz is null or at < $4)
              and ($5::text is null or operation = $5)
              and ($6::text is null or access_key = $6 or user_name = $6 or (actor = 'operator' and $6 = 'operator'))
              and ($7::text is null or coalesce(outcome, 'Unknown') = $7)
            order by seq limit $8
            "#,
            after,
            filter.tenant,
            filter.since.map(Timestamp::as_datetime),
            filter.until.map(Timestamp::as_datetime),
            filter.operation,
            filter.principal,
            filter.outcome,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Entry {
                seq: row.seq,
                at: row.at.into(),
                actor: row.actor,
                tenant: row.tenant,
                access_key: row.access_key,
                user_name: row.user_name,
                origin: row.origin,
                request_id: row.request_id,
                operation: row.operation,
                resources: row.resources,
                outcome: row.outcome,
                calls: row.calls,
            })
            .collect())
    }

    /// Deletes at most 10,000 rows that are older than `days` days, and returns their number.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_audit(&self, days: i32) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from audit where seq in (
                select seq from audit where at < now() - make_interval(days => $1)
                order by at limit $2 for update skip locked)",
            days,
            BATCH
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Writes a row, possibly in the transaction of the change itself.
pub(crate) async fn insert(
    executor: impl PgExecutor<'_>,
    entry: &NewEntry<'_>,
) -> Result<EntryId, sqlx::Error> {
    let seq = sqlx::query_scalar!(
        "insert into audit (actor, tenant, access_key, user_name, origin, request_id, operation, resources, outcome)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning seq",
        entry.actor.as_str(),
        entry.tenant.map(TenantId::as_str),
        entry.access_key,
        entry.user_name,
        entry.origin,
        entry.request_id,
        entry.operation,
        entry.resources,
        entry.outcome,
    )
    .fetch_one(executor)
    .await?;
    Ok(EntryId(seq))
}
