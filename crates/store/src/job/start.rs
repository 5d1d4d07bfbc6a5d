//! Start of a job, which requires an available source.

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::source::SourceState;
use domain::{JobId, TenantId};

use super::transition::{Change, Guard, Transitioned, apply};
use crate::bytes::{OverQuota, over_quota};
use crate::source::offline_after_secs;
use crate::{Store, StoreError, Transaction};

/// Outcome of a request to start a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartJob {
    /// The job is in the queue for a slot.
    Started,
    /// The job's state does not allow a start.
    Refused(State),
    /// The state of the job's source does not allow a start.
    Source(SourceState),
    /// The run would store more than the tenant's quota of bytes.
    OverQuota(OverQuota),
    /// The job does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Starts a job for its tenant.
    pub async fn start_job(
        &self,
        tenant: &TenantId,
        id: &JobId,
        headers: &TraceHeaders,
    ) -> Result<StartJob, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        let started = start(&mut transaction, tenant, id, "", headers).await?;
        match started {
            StartJob::Started => transaction.commit().await?,
            StartJob::Refused(_)
            | StartJob::Source(_)
            | StartJob::OverQuota(_)
            | StartJob::NotFound => transaction.rollback().await?,
        }
        Ok(started)
    }
}

/// Performs [`Store::start_job`] as part of a larger transaction, which the caller commits only if the job is started.
pub(super) async fn start(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    id: &JobId,
    detail: &str,
    headers: &TraceHeaders,
) -> Result<StartJob, StoreError> {
    let change = Change {
        event: Event::Start,
        guard: Guard::Tenant(tenant),
        actor: "api",
        detail,
        failure: None,
        headers,
    };
    match apply(transaction, id, change).await? {
        Transitioned::Moved(_) | Transitioned::Recorded => {}
        Transitioned::Refused(state) | Transitioned::Ignored { state, .. } => {
            return Ok(StartJob::Refused(state));
        }
        Transitioned::NotFound | Transitioned::Fenced => return Ok(StartJob::NotFound),
    }
    let source = sqlx::query!(
        r#"
        select source.deleting,
            source.last_seen_at > now() - make_interval(secs => $2) and source.failure_code is null as "healthy!"
        from job join source on source.id = job.source_id where job.id = $1
        "#,
        id.as_str(),
        offline_after_secs(),
    )
    .fetch_one(&mut **transaction)
    .await?;
    if let Some(over) = over_quota(&mut *transaction, id).await? {
        return Ok(StartJob::OverQuota(over));
    }
    // The job claims its source by now, so a healthy source shows InUse.
    Ok(
        match SourceState::derive(source.deleting, source.healthy, true) {
            SourceState::InUse | SourceState::Available => StartJob::Started,
            state @ (SourceState::Unavailable | SourceState::Deleting) => StartJob::Source(state),
        },
    )
}
