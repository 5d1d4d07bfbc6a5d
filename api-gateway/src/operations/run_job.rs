//! StartReplicationJob, StopReplicationJob, DeleteReplicationJob. A call records the intent and answers; other
//! processes do the work.

use domain::JobId;
use domain::job::{BusinessStatus, Event, Outcome, State, transition};
use domain::source::SourceState;
use smc::model::{DeleteReplicationJob, Done, StartReplicationJob, StopReplicationJob};
use store::bytes::OverQuota;
use store::job::start::StartJob;
use store::job::{Change, Guard, Transitioned};

use super::{id, source};
use crate::operation::{Call, Effect, Handle, Resource, Terms};
use crate::{Refusal, trace};

/// The job that a call names, in the region in which it is stored.
pub(super) const THE_JOB: &[Resource] = &[Resource::one("replicationJob", "JobId").where_it_lies()];

impl Handle for StartReplicationJob {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: THE_JOB,
        refusals: &[
            "InvalidJobId.NotFound",
            "ReplicationJob.InvalidStatus",
            "SourceServerState.Invalid",
            "QuotaExceeded.Bytes",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<JobId>(&self.job_id, "JobId")?;
        let store = &call.gateway.store;
        let started = store
            .start_job(&call.tenant, &id, &trace::headers())
            .await?;
        match started {
            StartJob::Started => {
                tracing::info!(job_id = %id, "start asked for");
                Ok(Done {})
            }
            StartJob::Refused(state) => Err(invalid_status(state, &allowed(Event::Start))),
            StartJob::Source(state) => Err(source_not_ready(state)),
            StartJob::OverQuota(over) => Err(over_quota(&over)),
            StartJob::NotFound => Err(Refusal::not_found("JobId")),
        }
    }
}

/// Refuses another run of a tenant that has stored too much.
pub(super) fn over_quota(over: &OverQuota) -> Refusal {
    Refusal::new("QuotaExceeded.Bytes", over.to_string())
}

/// Refuses a job whose source can't be copied from now.
pub(super) fn source_not_ready(state: SourceState) -> Refusal {
    let mut refusal = source::invalid_state(state, &[SourceState::Available, SourceState::InUse]);
    if state == SourceState::Unavailable {
        refusal.message.push_str(
            " The agent of the source is offline or reports an error: start it, check its log, and start the job again.",
        );
    }
    refusal
}

impl Handle for StopReplicationJob {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: THE_JOB,
        refusals: &[
            "InvalidJobId.NotFound",
            "ReplicationJob.InvalidStatus",
            "ReplicationJob.InvalidBusinessStatus",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<JobId>(&self.job_id, "JobId")?;
        change(&call, &id, Event::Stop)
            .await?
            .map_err(|state| match state.business_status() {
                Some(status) => invalid_business_status(status),
                None => invalid_status(state, &allowed(Event::Stop)),
            })
    }
}

impl Handle for DeleteReplicationJob {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: THE_JOB,
        refusals: &["InvalidJobId.NotFound", "ReplicationJob.InvalidStatus"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<JobId>(&self.job_id, "JobId")?;
        change(&call, &id, Event::Delete)
            .await?
            .map_err(|state| invalid_status(state, &allowed(Event::Delete)))
    }
}

/// Applies the tenant's event; the inner error is the state that does not accept it.
async fn change(call: &Call, id: &JobId, event: Event) -> Result<Result<Done, State>, Refusal> {
    let headers = trace::headers();
    let change = Change {
        event,
        guard: Guard::Tenant(&call.tenant),
        actor: "api",
        detail: "",
        failure: None,
        headers: &headers,
    };
    match call.gateway.store.transition(id, change).await? {
        Transitioned::Moved(_) | Transitioned::Recorded => {
            tracing::info!(job_id = %id, %event, "asked for");
            Ok(Ok(Done {}))
        }
        Transitioned::Refused(state) | Transitioned::Ignored { state, .. } => Ok(Err(state)),
        Transitioned::NotFound | Transitioned::Fenced => Err(Refusal::not_found("JobId")),
    }
}

/// Returns the states in which the tenant may ask for the event, from the state machine.
pub(super) fn allowed(event: Event) -> Vec<State> {
    State::ALL
        .into_iter()
        .filter(|&state| {
            matches!(
                transition::next(state, event),
                Outcome::To(_) | Outcome::Recorded
            )
        })
        .collect()
}

/// Refuses a call that the job's state does not allow.
pub(super) fn invalid_status(state: State, allowed: &[State]) -> Refusal {
    let mut statuses: Vec<&str> = allowed
        .iter()
        .map(|state| state.status().as_str())
        .collect();
    statuses.dedup();
    Refusal::new(
        "ReplicationJob.InvalidStatus",
        format!(
            "The specified replication job status: {} is invalid. This operation can only be performed in the following status: {}.",
            state.status(),
            statuses.join(", ")
        ),
    )
}

fn invalid_business_status(status: BusinessStatus) -> Refusal {
    Refusal::new(
        "ReplicationJob.InvalidBusinessStatus",
        format!(
            "The specified business status: {status} of the replication job is invalid. This operation can only be performed in the following status: {}.",
            BusinessStatus::Syncing
        ),
    )
}
