//! Jobs that deliver again and again: their frequency, their runs in an answer, and CutOverReplicationJob.

use domain::JobId;
use domain::job::Event;
use smc::model::{CutOverReplicationJob, Done, ReplicationJobRun, ReplicationJobRuns};
use store::job::Increments;
use store::job::increments::CutOver;
use store::job::runs::{JobRun, RunKind};

use super::{id, run_job};
use crate::operation::{Call, Effect, Handle, Terms};
use crate::{Refusal, trace};

/// Returns the schedule of a new job; `None` for one delivery.
pub(super) fn asked(
    run_once: Option<bool>,
    frequency: Option<i32>,
    images_to_keep: Option<i32>,
) -> Result<Option<Increments>, Refusal> {
    if run_once != Some(false) {
        return if frequency.is_some() || images_to_keep.is_some() {
            Err(delivers_once(frequency.is_some()))
        } else {
            Ok(None)
        };
    }
    Ok(Some(Increments {
        frequency_hours: frequency.ok_or_else(|| Refusal::missing("Frequency"))?,
        images_to_keep: images_to_keep.ok_or_else(|| Refusal::missing("MaxNumberOfImageToKeep"))?,
    }))
}

/// Refuses a frequency or a number of images to keep for a job that delivers once.
pub(super) fn delivers_once(has_frequency: bool) -> Refusal {
    let parameter = if has_frequency {
        "Frequency"
    } else {
        "MaxNumberOfImageToKeep"
    };
    Refusal::invalid(
        parameter,
        "It must not be given for a job that delivers once: it is for jobs that are made with RunOnce=false.",
    )
}

/// Returns `ReplicationJobRuns`.
pub(super) fn runs(runs: &[JobRun]) -> ReplicationJobRuns {
    let shown = runs.iter().map(|run| ReplicationJobRun {
        r#type: match run.kind {
            RunKind::Manual => "Manual",
            RunKind::Schedule => "Schedule",
        }
        .to_owned(),
        start_time: run.started_at.to_string(),
        end_time: run.ended_at.map(|at| at.to_string()),
        image_id: run.image_id.as_ref().map(ToString::to_string),
    });
    shown.collect()
}

impl Handle for CutOverReplicationJob {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: run_job::THE_JOB,
        refusals: &[
            "InvalidJobId.NotFound",
            "ReplicationJob.InvalidStatus",
            "QuotaExceeded.Bytes",
            "SourceServerState.Invalid",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<JobId>(&self.job_id, "JobId")?;
        let sync_data = self.sync_data.unwrap_or(false);
        let store = &call.gateway.store;
        let cut = store
            .cut_over_job(&call.tenant, &id, sync_data, &trace::headers())
            .await?;
        match cut {
            CutOver::Done => {
                tracing::info!(job_id = %id, sync_data, "cut over");
                Ok(Done {})
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
}
