//! StartReplicationJob, StopReplicationJob, DeleteReplicationJob: intent is recorded, and the call answers; the work is others'.

use domain::JobId;
use domain::job::{BusinessStatus, Event, Outcome, State, transition};
use domain::source::SourceState;
use store::bytes::OverQuota;
use store::job::start::StartJob;
use store::job::{Change, Guard, Transitioned};

use super::source;
use crate::answer::Answer;
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, Resource};
use crate::{Refusal, trace};

const JOB_ID: &[Parameter] = &[Parameter::required("JobId", Rule::Text(128), "The job.")];

pub(super) const START: Operation = Operation {
    name: "StartReplicationJob",
    summary: "Starts a job that is Ready, Stopped, InError or Waiting. Its source must be online. A stopped or failed job goes on from what was copied.",
    parameters: JOB_ID,
    answer: &[],
    refusals: &[
        "InvalidJobId.NotFound",
        "ReplicationJob.InvalidStatus",
        "SourceServerState.Invalid",
        "QuotaExceeded.Bytes",
    ],
    effect: Effect::Writes,
    resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
    handler: |call, arguments| Box::pin(start(call, arguments)),
};

async fn start(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = job_id(&arguments)?;
    let started = call
        .gateway
        .store
        .start_job(&call.tenant, &id, &trace::headers())
        .await?;
    match started {
        StartJob::Started => {
            tracing::info!(job_id = %id, "start asked for");
            Ok(Answer::done())
        }
        StartJob::Refused(state) => Err(invalid_status(state, &allowed(Event::Start))),
        StartJob::Source(state) => Err(source_not_ready(state)),
        StartJob::OverQuota(over) => Err(over_quota(&over)),
        StartJob::NotFound => Err(Refusal::not_found("JobId")),
    }
}

/// The tenant has stored too much for another run.
pub(super) fn over_quota(over: &OverQuota) -> Refusal {
    Refusal::new("QuotaExceeded.Bytes", over.to_string())
}

/// The job's source can't be copied from now.
pub(super) fn source_not_ready(state: SourceState) -> Refusal {
    let mut refusal = source::invalid_state(state, &[SourceState::Available, SourceState::InUse]);
    if state == SourceState::Unavailable {
        refusal.message.push_str(
            " The agent of the source is offline or reports an error: start it, check its log, and start the job again.",
        );
    }
    refusal
}

pub(super) const STOP: Operation = Operation {
    name: "StopReplicationJob",
    summary: "Stops a job that is Running in Syncing, or Waiting. What was copied is kept. The job is Stopped within seconds.",
    parameters: JOB_ID,
    answer: &[],
    refusals: &[
        "InvalidJobId.NotFound",
        "ReplicationJob.InvalidStatus",
        "ReplicationJob.InvalidBusinessStatus",
    ],
    effect: Effect::Writes,
    resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
    handler: |call, arguments| Box::pin(stop(call, arguments)),
};

async fn stop(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = job_id(&arguments)?;
    match change(&call, &id, Event::Stop).await? {
        Ok(answer) => Ok(answer),
        Err(state) => Err(match state.business_status() {
            Some(status) => invalid_business_status(status),
            None => invalid_status(state, &allowed(Event::Stop)),
        }),
    }
}

pub(super) const DELETE: Operation = Operation {
    name: "DeleteReplicationJob",
    summary: "Deletes a job that is not running. It is Deleting until its intermediate resources are gone; its image stays.",
    parameters: JOB_ID,
    answer: &[],
    refusals: &["InvalidJobId.NotFound", "ReplicationJob.InvalidStatus"],
    effect: Effect::Writes,
    resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
    handler: |call, arguments| Box::pin(delete(call, arguments)),
};

async fn delete(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = job_id(&arguments)?;
    change(&call, &id, Event::Delete)
        .await?
        .map_err(|state| invalid_status(state, &allowed(Event::Delete)))
}

/// Sends the tenant's event; the inner error is the state that does not take it.
async fn change(call: &Call, id: &JobId, event: Event) -> Result<Result<Answer, State>, Refusal> {
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
            Ok(Ok(Answer::done()))
        }
        Transitioned::Refused(state) | Transitioned::Ignored { state, .. } => Ok(Err(state)),
        Transitioned::NotFound | Transitioned::Fenced => Err(Refusal::not_found("JobId")),
    }
}

/// The states in which the tenant may ask for it: straight from the state machine.
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

/// The id that the call names. A text that is no id names nothing.
pub(super) fn job_id(arguments: &Arguments) -> Result<JobId, Refusal> {
    arguments
        .required_text("JobId")
        .parse()
        .map_err(|_| Refusal::not_found("JobId"))
}

/// The job's state does not allow it.
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
