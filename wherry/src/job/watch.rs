//! `wherry job watch`: a bar where there is a terminal, lines where there is none.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use domain::status_info::StatusInfo;
use indicatif::{ProgressBar, ProgressStyle};
use service::ExitCode;
use smc::model::ReplicationJob;

use super::{find, info, print_json, status};
use crate::connection::{Api, Output};
use crate::output::{bytes, duration, line};

const POLL: Duration = Duration::from_secs(1);

/// Without a terminal: a line when the status changes, and one each this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A gateway that is away is waited for this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Shows the job until it ends.
pub(super) async fn watch(api: &Api, name: &str) -> anyhow::Result<ExitCode> {
    let mut view = View::new(api.output);
    let id = find(api, name).await?.job_id;
    let mut seen_at = Instant::now();
    loop {
        match find(api, &id).await {
            Ok(job) => {
                seen_at = Instant::now();
                print_json(api, &job);
                view.show(&job);
                if let Some(code) = end(&job) {
                    view.finish(&job);
                    return Ok(code);
                }
            }
            Err(error) if is_passing(&error) && seen_at.elapsed() < PATIENCE => {
                view.say("the gateway is away; waiting for it")
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_passing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<smc::CallError>()
        .is_some_and(smc::CallError::is_retryable)
}

/// The exit code of a job that has ended.
fn end(job: &ReplicationJob) -> Option<ExitCode> {
    match job.status.as_str() {
        "Finished" | "Waiting" | "Stopped" => Some(ExitCode::Ok),
        "InError" | "Expired" | "Deleting" => Some(ExitCode::Failed),
        _ => None,
    }
}

struct View {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    last_status: String,
    last_line: Instant,
}

impl View {
    fn new(output: Output) -> Self {
        let is_quiet = output == Output::Json;
        let bar = (!is_quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{prefix:20} [{bar:30}] {percent:>3}%  {msg}")
                .expect("the template is well formed")
                .progress_chars("=> ");
            ProgressBar::new(1000).with_style(style)
        });
        Self {
            bar,
            is_quiet,
            last_status: String::new(),
            last_line: Instant::now(),
        }
    }

    fn show(&mut self, job: &ReplicationJob) {
        let (status, info) = (status(job), info(job));
        let progress = job.progress;
        if let Some(bar) = &self.bar {
            bar.set_prefix(domain::printable(&status).into_owned());
            bar.set_position((progress * 10.0) as u64);
            bar.set_message(describe(&info));
        } else if !self.is_quiet
            && (status != self.last_status || self.last_line.elapsed() >= LINE_INTERVAL)
        {
            line(format_args!(
                "{status:<20} {progress:>5.1} %  {}",
                describe(&info)
            ));
            self.last_line = Instant::now();
            self.last_status = status;
        }
    }

    fn say(&self, message: &'static str) {
        match &self.bar {
            Some(bar) => bar.set_message(message),
            None if !self.is_quiet => line(message),
            None => {}
        }
    }

    fn finish(&self, job: &ReplicationJob) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.is_quiet {
            return;
        }
        let id = &job.job_id;
        let image = job.image_id.as_deref().unwrap_or_default();
        let info = info(job);
        match job.status.as_str() {
            "Finished" => line(format_args!("Job {id} is finished. Its image is {image}.")),
            "Waiting" => line(format_args!(
                "Job {id} has delivered image {image} and waits for its next run. When that is: wherry job explain {id}"
            )),
            "Stopped" => line(format_args!(
                "Job {id} is stopped; what was copied is kept. Go on: wherry job start {id}"
            )),
            status => line(format_args!(
                "Job {id} is {status}: {} {}",
                job.error_code,
                info.error_msg
                    .unwrap_or_else(|| format!("`wherry job explain {id}` says why."))
            )),
        }
    }
}

/// Bytes, rate, time left, and what is being done.
fn describe(info: &StatusInfo) -> String {
    let mut parts = Vec::new();
    if let (Some(durable), Some(total)) = (info.bytes_durable, info.bytes_total) {
        parts.push(format!("{} of {}", bytes(durable), bytes(total)));
    }
    if let Some(rate) = info.rate_bytes_per_sec {
        parts.push(format!("{}/s", bytes(rate)));
    }
    if let Some(eta) = info.eta_secs {
        parts.push(format!("{} left", duration(Duration::from_secs(eta))));
    }
    if let Some(position) = info.queue_position {
        parts.push(format!("place {position} in the queue"));
    }
    parts.extend(info.doing.clone());
    domain::printable(&parts.join(", ")).into_owned()
}
