//! ExplainReplicationJob, Wherry's own: why a job is where it is, what happens next, and what happened so far.

use domain::job::explain::explain;
use serde_json::{Value, json};
use store::job::explain::JobEvent;

use super::run_job::job_id;
use crate::Refusal;
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, Resource, field};

pub(super) const EXPLAIN: Operation = Operation {
    name: "ExplainReplicationJob",
    summary: "Says in sentences why a job is where it is and what happens next, with its history. Not part of SMC.",
    parameters: &[Parameter::required("JobId", Rule::Text(128), "The job.")],
    answer: &[
        field("JobId", "string", "The job."),
        field("Status", "string", "Its status."),
        field(
            "BusinessStatus",
            "string",
            "Its business status, while Running.",
        ),
        field("Now", "string", "What it does or waits for."),
        field("Next", "string", "What happens next, and by whom."),
        field(
            "Reasons.Reason[]",
            "string",
            "Circumstances that bear on it.",
        ),
        field("Events.Event[].Time", "string", "When something happened."),
        field("Events.Event[].Event", "string", "What happened."),
        field("Events.Event[].From", "string", "The state before."),
        field("Events.Event[].To", "string", "The state since."),
        field("Events.Event[].Run", "integer", "In which run."),
        field("Events.Event[].Epoch", "integer", "Under which epoch."),
        field("Events.Event[].Actor", "string", "Who said so."),
        field("Events.Event[].Detail", "string", "More about it."),
    ],
    refusals: &["InvalidJobId.NotFound"],
    effect: Effect::Reads,
    resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
    handler: |call, arguments| Box::pin(answer(call, arguments)),
};

async fn answer(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = job_id(&arguments)?;
    let store = &call.gateway.store;
    let Some(facts) = store.job_facts(&call.tenant, &id).await? else {
        return Err(Refusal::not_found("JobId"));
    };
    let history = store.job_history(&call.tenant, &id).await?;
    let explanation = explain(&facts);
    Ok(Answer::fields(json!({
        "JobId": id,
        "Status": facts.state.status().as_str(),
        "BusinessStatus": facts.state.business_status().map(domain::job::BusinessStatus::as_str),
        "Now": explanation.now,
        "Next": explanation.next,
        "Reasons": list("Reason", explanation.reasons.into_iter().map(Value::from)),
        "Events": list("Event", history.iter().map(show)),
    })))
}

fn show(event: &JobEvent) -> Value {
    json!({
        "Time": event.at,
        "Event": event.event.as_str(),
        "From": event.from.as_str(),
        "To": event.to.as_str(),
        "Run": event.run,
        "Epoch": event.epoch,
        "Actor": event.actor,
        "Detail": event.detail,
    })
}
