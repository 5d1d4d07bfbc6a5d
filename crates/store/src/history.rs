//! The history of all jobs, for the operator and checkers, in the order of events.
//!
//! `seq` is that order. An admission counts slots before it writes its row, and a job that returns its slot writes its
//! row before it commits. So a replay of the rows by `seq` never counts a slot that had been returned. The column `at`
//! does not have this property: it is the beginning of a transaction.

use domain::job::{Event, State};
use domain::{Epoch, Run, Timestamp};

use crate::row::parse;
use crate::{Store, StoreError};

/// One row of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Position of the row in the order of all events.
    pub seq: i64,
    /// Time at which the transaction began.
    pub at: Timestamp,
    /// Name of the job's tenant.
    pub tenant: String,
    /// Id of the job.
    pub job_id: String,
    /// The event.
    pub event: Event,
    /// The state before the event.
    pub from: State,
    /// The state after the event.
    pub to: State,
    /// The run.
    pub run: Run,
    /// The epoch.
    pub epoch: Epoch,
    /// The actor that reported the event.
    pub actor: String,
    /// Details, for people.
    pub detail: String,
    /// The whole cause of a failure, for the operator; empty where there is no more to say.
    pub cause: String,
}

impl Store {
    /// Returns the events behind `after`, oldest first, `limit` rows at most. They are those of all tenants, or of the
    /// tenant with this name.
    ///
    /// # Errors
    /// The database fails, or holds a word that this version does not know.
    pub async fn history(
        &self,
        after: i64,
        limit: i64,
        tenant: Option<&str>,
    ) -> Result<Vec<Happened>, StoreError> {
        let rows = sqlx::query!(
            r#"select job_event.seq, at, tenant.name as tenant, job_id, event, from_state, to_state, run, epoch, actor, detail,
                      coalesce(cause, '') as "cause!"
               from job_event join tenant on tenant.id = job_event.tenant left join failure_cause on failure_cause.seq = job_event.seq
               where job_event.seq > $1 and ($3::text is null or tenant.name = $3)
               order by job_event.seq limit $2"#,
            after,
            limit,
            tenant,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Happened {
                    seq: row.seq,
                    at: row.at.into(),
                    tenant: row.tenant,
                    job_id: row.job_id,
                    event: parse("job_event.event", &row.event)?,
                    from: parse("job_event.from_state", &row.from_state)?,
                    to: parse("job_event.to_state", &row.to_state)?,
                    run: Run(row.run),
                    epoch: Epoch(row.epoch),
                    actor: row.actor,
                    detail: row.detail,
                    cause: row.cause,
                })
            })
            .collect()
    }
}
