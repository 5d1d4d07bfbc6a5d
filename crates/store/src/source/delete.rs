//! Removing a source, with its jobs if that is asked.
//!
//! A source goes when its last job is gone: until then it is marked, and whoever removes a job's row calls [`remove_if_over`].

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::{JobId, SourceId, TenantId};

use crate::job::transition::{Change, Guard, Transitioned, apply};
use crate::row::parse;
use crate::{Store, StoreError, Transaction};

/// What became of the wish to delete a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteSource {
    /// It is gone, or goes when its jobs are.
    Deleted,
    /// It has a job that runs. Nothing was changed.
    JobRuns(JobId),
    /// It has these jobs, and deleting them was not asked. Nothing was changed.
    HasJobs(Vec<JobId>),
    /// It is being deleted.
    Deleting,
    /// There is none, or it is another tenant's.
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
                // Its rows are locked, so only what can't be deleted at all gets here.
                _ => return Ok(DeleteSource::JobRuns(job.clone())),
            }
        }
        remove_if_over(&mut transaction, id.as_str()).await?;
        transaction.commit().await?;
        Ok(DeleteSource::Deleted)
    }

    /// Removes marked sources whose jobs are gone, in case whoever removed the last job died before it removed the source.
    pub async fn remove_deleted_sources(&self) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from source where deleting and not exists (select 1 from job where job.source_id = source.id)"
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Jobs that are not already on their way out, locked.
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

/// Removes the source if it is marked and has no job left. Part of the transaction that removes a job's row.
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
