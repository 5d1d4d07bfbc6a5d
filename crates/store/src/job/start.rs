//! Starting a job, which needs its source to be there.

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::source::SourceState;
use domain::{JobId, TenantId};

use super::transition::{Change, Guard, Transitioned, apply};
use crate::source::offline_after_secs;
use crate::{Store, StoreError, Transaction};

/// What became of the wish to start a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartJob {
    /// It is in the queue for a slot.
    Started,
    /// Not in this state.
    Refused(State),
    /// Not while its source is in this state.
    Source(SourceState),
    /// There is none, or it is another tenant's.
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
            StartJob::Refused(_) | StartJob::Source(_) | StartJob::NotFound => {
                transaction.rollback().await?
            }
        }
        Ok(started)
    }
}

/// [`Store::start_job`] as part of a larger transaction, which the caller commits only if the job is started.
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
    // The job claims its source by now, so that InUse is what a healthy one shows.
    Ok(
        match SourceState::derive(source.deleting, source.healthy, true) {
            SourceState::InUse | SourceState::Available => StartJob::Started,
            state @ (SourceState::Unavailable | SourceState::Deleting) => StartJob::Source(state),
        },
    )
}
