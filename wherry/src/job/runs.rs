//! The runs of a job that delivers again and again, and their end.

use clap::Args;
use domain::printable;
use smc::model::{CutOverReplicationJob, ReplicationJob};

use super::{Named, find};
use crate::connection::Api;
use crate::output::table;

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
        let request = CutOverReplicationJob {
            job_id: find(api, &self.job.job).await?.job_id,
            sync_data: Some(self.sync),
        };
        let answer = api.client.call(&request).await?;
        let id = printable(&request.job_id);
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

/// Text for a job that delivers again and again: its interval, and the images that are kept. Empty for a job that
/// delivers once.
pub(super) fn repeats(job: &ReplicationJob) -> String {
    match (job.frequency, job.max_number_of_image_to_keep) {
        (Some(hours), Some(keep)) => format!("every {hours} h, the last {keep} images are kept"),
        _ => String::new(),
    }
}

/// The runs of a job that delivers again and again. A job that delivers once needs no list: the job itself shows
/// everything.
pub(super) fn list(job: &ReplicationJob) -> String {
    let runs: Vec<Vec<String>> = job
        .replication_job_runs
        .iter()
        .map(|run| {
            vec![
                run.start_time.clone(),
                run.end_time.clone().unwrap_or_default(),
                run.r#type.clone(),
                run.image_id.clone().unwrap_or_default(),
            ]
        })
        .collect();
    if runs.is_empty() || job.run_once {
        return String::new();
    }
    format!(
        "\n{}",
        table(&["RUN STARTED", "ENDED", "BY", "IMAGE"], &runs)
    )
}

#[cfg(test)]
mod tests {
    use smc::model::ReplicationJobRun;

    use super::*;

    #[test]
    fn a_job_that_repeats_shows_its_runs() {
        let run = ReplicationJobRun {
            start_time: "2026-01-01T00:00:00Z".to_owned(),
            end_time: Some("2026-01-01T01:00:00Z".to_owned()),
            r#type: "Manual".to_owned(),
            image_id: Some("m-1".to_owned()),
        };
        let mut job = ReplicationJob {
            run_once: false,
            frequency: Some(24),
            max_number_of_image_to_keep: Some(3),
            replication_job_runs: [run].into_iter().collect(),
            ..ReplicationJob::default()
        };
        assert_eq!(repeats(&job), "every 24 h, the last 3 images are kept");
        assert_eq!(
            list(&job),
            "\nRUN STARTED           ENDED                 BY      IMAGE\n\
             2026-01-01T00:00:00Z  2026-01-01T01:00:00Z  Manual  m-1\n"
        );
        job.run_once = true;
        assert_eq!(list(&job), "");
        assert_eq!(repeats(&ReplicationJob::default()), "");
    }
}
