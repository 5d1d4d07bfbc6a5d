//! Assignments of agents, and the agents' reports on them.

use domain::{Epoch, Failure, JobId};

use crate::agent::ReportedState;
use crate::row::parse;
use crate::{Store, StoreError};

/// The last report of an agent on its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentReport {
    /// Progress of the assignment.
    pub state: ReportedState,
    /// Reason for the failure or for the retries.
    pub failure: Option<Failure>,
}

impl Store {
    /// Gives the job's source its assignment under `epoch`, in place of an earlier one. `message` is a
    /// `wherry.agent.v1.Assignment`. `false` if the epoch is over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn put_assignment(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        message: &[u8],
    ) -> Result<bool, StoreError> {
        let written = sqlx::query!(
            r#"
            insert into assignment (job_id, tenant, source_id, run, epoch, message)
            select id, tenant, source_id, run, epoch, $3 from job where id = $1 and epoch = $2
            on conflict (job_id) do update set
                run = excluded.run, epoch = excluded.epoch, message = excluded.message, agent_state = 'assigned',
                failure_code = null, failure_message = null, copied_free_space = '[]', updated_at = now()
                where assignment.epoch <= excluded.epoch
            "#,
            job_id.as_str(),
            epoch.0,
            message,
        )
        .execute(&self.pool)
        .await?;
        Ok(written.rows_affected() == 1)
    }

    /// Changes the content of the source's assignment without a restart: the agent's reports remain. `false` if the
    /// epoch is over, or if there is no assignment.
    ///
    /// # Errors
    /// The database fails.
    pub async fn revise_assignment(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        message: &[u8],
    ) -> Result<bool, StoreError> {
        let written = sqlx::query!(
            "update assignment set message = $3, updated_at = now() where job_id = $1 and epoch = $2",
            job_id.as_str(),
            epoch.0,
            message,
        )
        .execute(&self.pool)
        .await?;
        Ok(written.rows_affected() == 1)
    }

    /// Returns the agent's last report under this epoch.
    ///
    /// # Errors
    /// The database fails.
    pub async fn agent_report(
        &self,
        job_id: &JobId,
        epoch: Epoch,
    ) -> Result<Option<AgentReport>, StoreError> {
        let row = sqlx::query!(
            "select agent_state, failure_code, failure_message from assignment where job_id = $1 and epoch = $2",
            job_id.as_str(),
            epoch.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let failure = match (row.failure_code, row.failure_message) {
                (Some(code), message) => Some(Failure::new(
                    parse("assignment.failure_code", &code)?,
                    message.unwrap_or_default(),
                )),
                (None, _) => None,
            };
            Ok(AgentReport {
                state: parse("assignment.agent_state", &row.agent_state)?,
                failure,
            })
        })
        .transpose()
    }

    /// Withdraws the assignment, unless it has a later epoch.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_assignment(&self, job_id: &JobId, epoch: Epoch) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from assignment where job_id = $1 and epoch <= $2",
            job_id.as_str(),
            epoch.0
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
