//! The runs of a job that delivers again and again, and their end.

use clap::Args;
use serde_json::Value;

use super::{Named, find};
use crate::connection::Api;
use crate::output::{table, text};

#[derive(Debug, Args)]
pub(crate) struct CutOver {
    #[command(flatten)]
    job: Named,
    /// Deliver once more before the job is finished.
    #[arg(long)]
    sync: bool,
}

impl CutOver {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        let id = text(&find(api, &self.job.job).await?, "JobId");
        let parameters = [
            ("JobId", id.as_str()),
            ("SyncData", if self.sync { "true" } else { "false" }),
        ];
        let answer = api
            .client
            .call("CutOverReplicationJob", &parameters)
            .await?;
        api.show(&answer, |_| {
            if self.sync {
                format!("Job {id} does its last run. Watch it: wherry job watch {id}\n")
            } else {
                format!("Job {id} is finished.\n")
            }
        });
        Ok(())
    }
}

/// How often a job delivers; empty for once.
pub(super) fn repeats(job: &Value) -> String {
    match (
        job["Frequency"].as_u64(),
        job["MaxNumberOfImageToKeep"].as_u64(),
    ) {
        (Some(hours), Some(keep)) => format!("every {hours} h, the last {keep} images are kept"),
        _ => String::new(),
    }
}

/// The runs of a job that delivers again and again. Of one that delivers once, the job itself says all.
pub(super) fn list(job: &Value) -> String {
    let runs: Vec<Vec<String>> = job["ReplicationJobRuns"]["ReplicationJobRun"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| {
            ["StartTime", "EndTime", "Type", "ImageId"]
                .iter()
                .map(|field| text(run, field))
                .collect()
        })
        .collect();
    if runs.is_empty() || job["RunOnce"] != false {
        return String::new();
    }
    format!(
        "\n{}",
        table(&["RUN STARTED", "ENDED", "BY", "IMAGE"], &runs)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_repeats_shows_its_runs() {
        let run = json!({
            "StartTime": "2026-01-01T00:00:00Z", "EndTime": "2026-01-01T01:00:00Z", "Type": "Manual", "ImageId": "m-1",
        });
        let mut job = json!({
            "RunOnce": false, "Frequency": 24, "MaxNumberOfImageToKeep": 3, "ReplicationJobRuns": { "ReplicationJobRun": [run] },
        });
        assert_eq!(repeats(&job), "every 24 h, the last 3 images are kept");
        assert_eq!(
            list(&job),
            "\nRUN STARTED           ENDED                 BY      IMAGE\n\
             2026-01-01T00:00:00Z  2026-01-01T01:00:00Z  Manual  m-1\n"
        );
        job["RunOnce"] = true.into();
        assert_eq!(list(&job), "");
        assert_eq!(repeats(&json!({ "RunOnce": true })), "");
    }
}
