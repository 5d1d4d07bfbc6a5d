//! Jobs that deliver again and again: their parameters, their runs in an answer, and CutOverReplicationJob.

use domain::job::Event;
use serde_json::{Value, json};
use store::job::Increments;
use store::job::increments::CutOver;
use store::job::runs::{JobRun, RunKind};

use super::run_job;
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, Resource};
use crate::{Refusal, trace};

/// `RunOnce`.
pub(super) const RUN_ONCE: Parameter = Parameter::optional(
    "RunOnce",
    Rule::Boolean,
    "false for a job that delivers again and again: a full image each time, until CutOverReplicationJob; default true.",
);
/// `Frequency`.
pub(super) const FREQUENCY: Parameter = Parameter::optional(
    "Frequency",
    Rule::Integer(1, 168),
    "Hours from the start of one run to that of the next. Only for jobs with RunOnce=false, for which it is mandatory.",
);
/// `MaxNumberOfImageToKeep`.
pub(super) const IMAGES_TO_KEEP: Parameter = Parameter::optional(
    "MaxNumberOfImageToKeep",
    Rule::Integer(1, 10),
    "Images that are kept: when one more is delivered, the oldest is deleted. Only for jobs with RunOnce=false, for which it is mandatory.",
);

/// How often the job that is to be made delivers; `None` for once.
pub(super) fn asked(arguments: &Arguments) -> Result<Option<Increments>, Refusal> {
    let (frequency_hours, images_to_keep) = given(arguments);
    if arguments.boolean("RunOnce") != Some(false) {
        return if frequency_hours.is_some() || images_to_keep.is_some() {
            Err(delivers_once(frequency_hours.is_some()))
        } else {
            Ok(None)
        };
    }
    Ok(Some(Increments {
        frequency_hours: frequency_hours.ok_or_else(|| Refusal::missing("Frequency"))?,
        images_to_keep: images_to_keep.ok_or_else(|| Refusal::missing("MaxNumberOfImageToKeep"))?,
    }))
}

/// `Frequency` and `MaxNumberOfImageToKeep` of the call.
pub(super) fn given(arguments: &Arguments) -> (Option<i32>, Option<i32>) {
    let number = |name| {
        arguments
            .integer(name)
            .and_then(|number| i32::try_from(number).ok())
    };
    (number("Frequency"), number("MaxNumberOfImageToKeep"))
}

/// A job that delivers once has neither a frequency nor images to keep.
pub(super) fn delivers_once(has_frequency: bool) -> Refusal {
    let parameter = if has_frequency {
        "Frequency"
    } else {
        "MaxNumberOfImageToKeep"
    };
    Refusal::invalid(
        parameter,
        "The job delivers once: it is for jobs that are made with RunOnce=false.",
    )
}

/// `ReplicationJobRuns`.
pub(super) fn runs(runs: &[JobRun]) -> Value {
    list(
        "ReplicationJobRun",
        runs.iter().map(|run| {
            json!({
                "Type": match run.kind {
                    RunKind::Manual => "Manual",
                    RunKind::Schedule => "Schedule",
                },
                "StartTime": run.started_at,
                "EndTime": run.ended_at,
                "ImageId": run.image_id,
            })
        }),
    )
}

pub(super) const CUT_OVER: Operation = Operation {
    name: "CutOverReplicationJob",
    summary: "Ends a job that delivers again and again, while it is Waiting: at once, or with SyncData after one more run. Its images stay. A last run that fails or is stopped stays the last one: StartReplicationJob starts it again.",
    parameters: &[
        Parameter::required("JobId", Rule::Text(128), "The job."),
        Parameter::optional(
            "SyncData",
            Rule::Boolean,
            "Deliver once more before the job is Finished, for which the source must be online; default false.",
        ),
    ],
    answer: &[],
    refusals: &[
        "InvalidJobId.NotFound",
        "ReplicationJob.InvalidStatus",
        "QuotaExceeded.Bytes",
        "SourceServerState.Invalid",
    ],
    effect: Effect::Writes,
    resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
    handler: |call, arguments| Box::pin(cut_over(call, arguments)),
};

async fn cut_over(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = run_job::job_id(&arguments)?;
    let sync_data = arguments.boolean("SyncData").unwrap_or(false);
    let store = &call.gateway.store;
    match store
        .cut_over_job(&call.tenant, &id, sync_data, &trace::headers())
        .await?
    {
        CutOver::Done => {
            tracing::info!(job_id = %id, sync_data, "cut over");
            Ok(Answer::done())
        }
        CutOver::Refused(state) => Err(run_job::invalid_status(
            state,
            &run_job::allowed(Event::CutOver),
        )),
        CutOver::Source(state) => Err(run_job::source_not_ready(state)),
        CutOver::OverQuota(over) => Err(run_job::over_quota(&over)),
        CutOver::NotFound => Err(Refusal::not_found("JobId")),
    }
}
