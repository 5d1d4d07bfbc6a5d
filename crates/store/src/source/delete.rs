//! Removal of a source, with its jobs on request.
//!
//! A source is removed with its last job. Until then it is marked, and each removal of a job's row calls
//! [`remove_if_over`].

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::{JobId, SourceId, TenantId};

use crate::job::transition::{Change, Guard, Transitioned, apply};
use crate::row::parse;
use crate::{Store, StoreError, Transaction};

/// Outcome of a request to delete a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteSource {
    /// The source is gone, or will be when its jobs are.
    Deleted,
    /// The source has a job that runs. Nothing was changed.
    JobRuns(JobId),
    /// The source has these jobs, and their deletion was not requested. Nothing was changed.
    HasJobs(Vec<JobId>),
    /// The source is being deleted.
    Deleting,
    /// The source does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Deletes a source; with `force` its jobs as well, unless one runs.
    pub async fn delete_source(
        &self,
        tenant: &TenantId,
        id: &SourceId,
        force: bool,
        headers: &TraceHeaders,
    ) -> Result<DeleteSource, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        let Some(deleting) = sqlx::query_scalar!(
            "select deleting from source where tenant = $1 and id = $2 for update",
            tenant.as_str(),
            id.as_str()
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(DeleteSource::NotFound);
        };
        if deleting {
            return Ok(DeleteSource::Deleting);
        }
        let jobs = jobs_of(&mut transaction, id).await?;
        if let Some((job, _)) = jobs.iter().find(|(_, state)| state.is_running()) {
            return Ok(DeleteSource::JobRuns(job.clone()));
        }
        if !jobs.is_empty() && !force {
            return Ok(DeleteSource::HasJobs(
                jobs.into_iter().map(|(job, _)| job).collect(),
            ));
        }
        sqlx::query!(
            "update source set deleting = true where id = $1",
            id.as_str()
        )
        .execute(&mut *transaction)
        .await?;
        for (job, _) in &jobs {
            let change = Change {
                event: Event::Delete,
                guard: Guard::Tenant(tenant),
                actor: "api",
                detail: "with its source",
                failure: None,
                headers,
            };
            match apply(&mut transaction, job, change).await? {
                Transitioned::Moved(_) => {}
                // The jobs' rows are locked, so only jobs that can't be deleted get here.
                _ => return Ok(DeleteSource::JobRuns(job.clone())),
            }
        }
        remove_if_over(&mut transaction, id.as_str()).await?;
        transaction.commit().await?;
        Ok(DeleteSource::Deleted)
    }

    /// Removes marked sources whose jobs are gone. The process that removed the last job may have died before it
    /// removed the source.
    pub async fn remove_deleted_sources(&self) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from source where deleting and not exists (select 1 from job where job.source_id = source.id)"
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Returns the source's jobs that are not being deleted, and locks them.
async fn jobs_of(
    transaction: &mut Transaction<'_>,
    id: &SourceId,
) -> Result<Vec<(JobId, State)>, StoreError> {
    sqlx::query!(
        "select id, state from job where source_id = $1 and state <> 'deleting' order by id for update",
        id.as_str()
    )
    .fetch_all(&mut **transaction)
    .await?
    .into_iter()
    .map(|row| Ok((parse("job.id", &row.id)?, parse("job.state", &row.state)?)))
    .collect()
}

/// Removes the source if it is marked and has no job left. Belongs to the transaction that removes a job's row.
pub(crate) async fn remove_if_over(
    transaction: &mut Transaction<'_>,
    source_id: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from source where id = $1 and deleting and not exists (select 1 from job where job.source_id = $1)",
        source_id
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
