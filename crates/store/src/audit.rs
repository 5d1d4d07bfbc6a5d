//! The audit: who changed what.
//!
//! A row is written before its call is carried out and completed when the outcome is known. A row that was never completed says that the
//! call may have been carried out, and that nobody was left to tell: the process died, or Postgres went away.

use domain::{TenantId, Timestamp};
use sqlx::PgExecutor;

use crate::{Store, StoreError};

/// Rows that are forgotten at once at most.
const BATCH: i64 = 10_000;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A tenant, with a signed call.
    Tenant,
    /// Whoever may open the operators' socket.
    Operator,
    /// An agent that has no identity yet: it registers.
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
    /// Who calls.
    pub actor: Actor,
    /// Whom it concerns, if that is known already.
    pub tenant: Option<&'a TenantId>,
    /// The key that it was signed with, or the activation code's id; empty for operators.
    pub access_key: &'a str,
    /// The user whose key that is; empty for the tenant's own.
    pub user_name: &'a str,
    /// Where it came from.
    pub origin: &'a str,
    /// Its id, as in the answer and in the log.
    pub request_id: &'a str,
    /// What is called.
    pub operation: &'a str,
    /// The ids that it names.
    pub resources: &'a [String],
    /// Its outcome, for a call that is refused before it is carried out.
    pub outcome: Option<&'a str>,
}

/// A row that waits for its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(i64);

/// Which rows to list; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// A tenant's name, or its id.
    pub tenant: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// What was called.
    pub operation: Option<String>,
    /// An access key's id, a user's name, or `operator`.
    pub principal: Option<String>,
    /// `OK`, a code, or `Unknown`.
    pub outcome: Option<String>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order.
    pub seq: i64,
    /// When the call came.
    pub at: Timestamp,
    /// `tenant`, `operator` or `agent`.
    pub actor: String,
    /// Name of the tenant that it concerns, or its id if it is gone; empty for none.
    pub tenant: String,
    /// The key that it was signed with.
    pub access_key: String,
    /// The user whose key that is.
    pub user_name: String,
    /// Where it came from.
    pub origin: String,
    /// Its id.
    pub request_id: String,
    /// What was called.
    pub operation: String,
    /// What it named and what it made.
    pub resources: Vec<String>,
    /// `OK`, a code, or `Unknown`.
    pub outcome: String,
    /// How many calls the row stands for: more than one where calls were throttled.
    pub calls: i64,
}

impl Store {
    /// Writes that a call is about to be carried out, or that it was refused.
    ///
    /// # Errors
    /// The database fails. The call must not be carried out then.
    pub async fn begin_audit(&self, entry: &NewEntry<'_>) -> Result<EntryId, StoreError> {
        Ok(insert(&self.pool, entry).await?)
    }

    /// Writes one row for so many calls that were refused alike.
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

    /// Writes what became of the call, and what it made. `tenant` is whom it concerned, if that was not known before.
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

    /// The rows behind `after`, oldest first, `limit` at most.
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

    /// Forgets at most 10,000 rows that are older than so many days, and says how many.
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

/// Writes a row, be it in the transaction that does what it says.
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
