//! `wherry job`: making, driving and watching replication jobs.

mod modify;
mod runs;
mod tuning;
mod watch;

use anyhow::bail;
use clap::{Args, Subcommand};
use domain::disk::Moment;
use domain::parameters::ReplicationParameters;
use domain::printable;
use domain::status_info::StatusInfo;
use serde_json::Value;
use service::ExitCode;

use crate::connection::{Api, Output};
use crate::failure::UsageError;
use crate::output::{self, bytes, fields, raw, table, text};
use crate::source;
use tuning::Tuning;

/// The smallest disk that the API takes, in GiB.
const SMALLEST_GIB: u64 = 20;

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Creates a job: one source to one image.
    #[command(
        after_help = "Examples:\n  wherry job create --source web-1 --start\n  \
        wherry job create --source web-1 --system-disk-size 40 --data-disk 1:100 --name web-1 --image-name web-1-2026 --checksum\n  \
        wherry job create --source web-1 --at 2026-12-24T22:00:00Z --bandwidth-limit 200mbit\n  \
        wherry job create --source web-1 --every 24 --keep 3 --start"
    )]
    Create(Box<Create>),
    /// Changes a job. Name and description for all its life; until it has delivered, how long it is valid and how fast it copies, which a run takes
    /// up within seconds; hours and images to keep also while it waits for its next run; the rest before its first start.
    #[command(
        after_help = "Examples:\n  wherry job modify web-1 --bandwidth-limit 500mbit\n  \
        wherry job modify web-1 --name web-1-final --bandwidth-limit none"
    )]
    Modify(Box<modify::Modify>),
    /// Starts a job, goes on with a stopped or failed one, or runs one that waits for its next run.
    Start(Named),
    /// Stops a job that copies, or that waits for its next run. What was copied is kept.
    Stop(Named),
    /// Ends a job that delivers again and again, while it waits for its next run.
    Cutover(runs::CutOver),
    /// Deletes a job and what it holds. Delivered images stay.
    Delete(Named),
    /// Lists all jobs, newest first.
    List,
    /// Shows one job.
    Show(Named),
    /// Shows a job's progress until it ends, or waits for its next run. Exit code 0 for a finished, waiting or stopped job, 1 for any other end.
    Watch(Named),
    /// Says why a job is where it is, and what happens next.
    Explain(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Id or name of the job.
    job: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Id or name of the source.
    #[arg(long)]
    source: String,
    /// Name of the job.
    #[arg(long)]
    name: Option<String>,
    /// Name of the image.
    #[arg(long)]
    image_name: Option<String>,
    /// What the job is for.
    #[arg(long)]
    description: Option<String>,
    /// Size of the image's system disk in GiB. Without it, that of the source's, at least 20.
    #[arg(long, value_name = "GIB")]
    system_disk_size: Option<u64>,
    /// Size of a data disk of the image, as INDEX:GIB. Others get the size of the source's, at least 20.
    #[arg(long, value_name = "INDEX:GIB", value_parser = data_disk)]
    data_disk: Vec<(u64, u64)>,
    /// When the job starts by itself, as YYYY-MM-DDThh:mm:ssZ.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Until when the job may be started, as YYYY-MM-DDThh:mm:ssZ: 7 to 90 days from now, 30 without it.
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
    /// Deliver an image every so many hours, 1 to 168, until `wherry job cutover`. Each is a full copy.
    #[arg(long, value_name = "HOURS", requires = "keep")]
    every: Option<u64>,
    /// Images that are kept, 1 to 10: when one more is delivered, the oldest is deleted.
    #[arg(long, value_name = "N", requires = "every")]
    keep: Option<u64>,
    #[command(flatten)]
    tuning: Tuning,
    /// Start it now.
    #[arg(long, conflicts_with = "at")]
    start: bool,
}

fn data_disk(text: &str) -> Result<(u64, u64), String> {
    let pair = text
        .split_once(':')
        .and_then(|(index, gib)| Some((index.parse().ok()?, gib.parse().ok()?)));
    pair.ok_or_else(|| "give it as INDEX:GIB, such as 1:40".to_owned())
}

const LIST: (&str, &str) = ("ReplicationJobs", "ReplicationJob");

impl Job {
    pub(crate) async fn run(self, api: &Api) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(api).await?,
            Self::Modify(modify) => modify.run(api).await?,
            Self::Start(named) => named.call(api, "StartReplicationJob", "started").await?,
            Self::Stop(named) => {
                named
                    .call(
                        api,
                        "StopReplicationJob",
                        "stopping; what was copied is kept",
                    )
                    .await?
            }
            Self::Cutover(cut_over) => cut_over.run(api).await?,
            Self::Delete(named) => {
                named
                    .call(api, "DeleteReplicationJob", "being deleted")
                    .await?
            }
            Self::List => {
                let jobs = api.list("DescribeReplicationJobs", LIST, &[]).await?;
                api.show(&Value::from(jobs), |jobs| {
                    list(jobs.as_array().map_or(&[], Vec::as_slice))
                });
            }
            Self::Show(named) => {
                let job = find(api, &named.job).await?;
                api.show(&job, show);
            }
            Self::Watch(named) => return watch::watch(api, &named.job).await,
            Self::Explain(named) => {
                let id = text(&find(api, &named.job).await?, "JobId");
                let explained = api
                    .client
                    .call("ExplainReplicationJob", &[("JobId", id)])
                    .await?;
                api.show(&explained, explain);
            }
        }
        Ok(ExitCode::Ok)
    }
}

/// The job with this id or name.
async fn find(api: &Api, job: &str) -> anyhow::Result<Value> {
    let by = if job.parse::<domain::JobId>().is_ok() {
        "JobId.1"
    } else {
        "Name"
    };
    let found = api
        .list(
            "DescribeReplicationJobs",
            LIST,
            &[(by.to_owned(), job.to_owned())],
        )
        .await?;
    match found.into_iter().next() {
        Some(found) => Ok(found),
        None => bail!("there is no job {job:?}: `wherry job list` shows all"),
    }
}

impl Named {
    async fn call(&self, api: &Api, action: &str, done: &str) -> anyhow::Result<()> {
        let id = text(&find(api, &self.job).await?, "JobId");
        let answer = api.client.call(action, &[("JobId", id.as_str())]).await?;
        api.show(&answer, |_| format!("Job {id}: {done}.\n"));
        if action == "StartReplicationJob" {
            warn(api, &id).await?;
        }
        Ok(())
    }
}

impl Create {
    async fn run(self, api: &Api) -> anyhow::Result<()> {
        let source = source::find(api, &self.source).await?;
        let mut parameters = vec![
            ("SourceId".to_owned(), text(&source, "SourceId")),
            (
                "SystemDiskSize".to_owned(),
                self.system_disk_gib(&source).to_string(),
            ),
        ];
        for (number, (index, gib)) in self.data_disks(&source)?.into_iter().enumerate() {
            parameters.push((format!("DataDisk.{}.Index", number + 1), index.to_string()));
            parameters.push((format!("DataDisk.{}.Size", number + 1), gib.to_string()));
        }
        let optional = [
            ("Name", self.name.clone()),
            ("ImageName", self.image_name.clone()),
            ("Description", self.description.clone()),
            ("ScheduledStartTime", self.at.clone()),
            ("ValidTime", self.valid_until.clone()),
            ("RunOnce", self.every.map(|_| "false".to_owned())),
            ("Frequency", self.every.map(|hours| hours.to_string())),
            (
                "MaxNumberOfImageToKeep",
                self.keep.map(|keep| keep.to_string()),
            ),
            ("ReplicationParameters", self.parameters()),
        ];
        for (name, value) in optional {
            parameters.extend(value.map(|value| (name.to_owned(), value)));
        }
        let answer = api.client.call("CreateReplicationJob", &parameters).await?;
        let id = text(&answer, "JobId");
        if self.start {
            api.client
                .call("StartReplicationJob", &[("JobId", id.as_str())])
                .await?;
        }
        api.show(&answer, |_| match (self.start, &self.at) {
            (true, _) => format!("Job {id} is started. Watch it: wherry job watch {id}\n"),
            (false, Some(at)) => format!("Job {id} starts at {at}.\n"),
            (false, None) => format!("Job {id} is created. Start it: wherry job start {id}\n"),
        });
        warn(api, &id).await
    }

    fn system_disk_gib(&self, source: &Value) -> u64 {
        let of_source = source["SystemDiskSize"].as_u64().unwrap_or(0);
        self.system_disk_size.unwrap_or(of_source.max(SMALLEST_GIB))
    }

    /// Every data disk of the source, with the size that was asked for or its own.
    fn data_disks(&self, source: &Value) -> anyhow::Result<Vec<(u64, u64)>> {
        let of_source: Vec<(u64, u64)> = source["DataDisks"]["DataDisk"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|disk| Some((disk["Index"].as_u64()?, disk["Size"].as_u64()?)))
            .collect();
        for (index, _) in &self.data_disk {
            if !of_source.iter().any(|(known, _)| known == index) {
                return Err(
                    UsageError(format!("the source has no data disk with index {index}")).into(),
                );
            }
        }
        let asked = |index: u64| {
            self.data_disk
                .iter()
                .find(|(asked, _)| *asked == index)
                .map(|(_, gib)| *gib)
        };
        Ok(of_source
            .into_iter()
            .map(|(index, gib)| (index, asked(index).unwrap_or(gib.max(SMALLEST_GIB))))
            .collect())
    }

    fn parameters(&self) -> Option<String> {
        self.tuning.applied_to(&ReplicationParameters::default())
    }
}

/// Status, and within Running the part of the run.
fn status(job: &Value) -> String {
    match text(job, "BusinessStatus") {
        part if part.is_empty() => text(job, "Status"),
        part => format!("{}/{part}", text(job, "Status")),
    }
}

fn info(job: &Value) -> StatusInfo {
    // What a later version adds is no reason to show nothing.
    StatusInfo::from_json(&raw(job, "StatusInfo")).unwrap_or_default()
}

/// What carries the disks, and why.
fn transport(info: &StatusInfo) -> String {
    let parts = [&info.transport, &info.transport_reason];
    let known: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    known.join(": ")
}

/// What was left out as free, and where free space is copied instead.
fn free_space(info: &StatusInfo) -> String {
    let left_out = info
        .bytes_free
        .map(|free| format!("{} left out", bytes(free)));
    let copied = info
        .copied_free_space
        .iter()
        .map(|copied| format!("copied of disk {}: {}", copied.disk, copied.reason));
    left_out
        .into_iter()
        .chain(copied)
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the source could not read.
fn unread(info: &StatusInfo) -> String {
    match (info.unreadable_ranges, info.unreadable_bytes) {
        (Some(ranges), Some(lost)) => {
            format!(
                "{} that the source can't read, in {ranges} ranges; the copy has zeros there",
                bytes(lost)
            )
        }
        _ => String::new(),
    }
}

/// Whether what was copied is one moment in time, where that is not so or not known.
fn consistency(info: &StatusInfo) -> String {
    match info.consistency {
        Some(Moment::Several) => "not one moment in time: the disks were written meanwhile",
        Some(Moment::Unknown) => "it is not known whether the copy is one moment in time",
        Some(Moment::One) => "one moment in time",
        None => "",
    }
    .to_owned()
}

/// Says on standard error what may keep the job's run from its end.
async fn warn(api: &Api, id: &str) -> anyhow::Result<()> {
    let job = find(api, id).await?;
    for sentence in info(&job).warnings {
        output::warning(&sentence);
    }
    Ok(())
}

fn list(jobs: &[Value]) -> String {
    if jobs.is_empty() {
        return "No jobs yet. `wherry job create --source NAME` makes one.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                text(job, "JobId"),
                text(job, "Name"),
                status(job),
                format!("{} %", text(job, "Progress")),
                text(job, "SourceId"),
                text(job, "ImageId"),
                text(job, "ErrorCode"),
            ]
        })
        .collect();
    table(
        &[
            "ID", "NAME", "STATUS", "PROGRESS", "SOURCE", "IMAGE", "ERROR",
        ],
        &rows,
    )
}

fn show(job: &Value) -> String {
    let info = info(job);
    let copied = match (info.bytes_durable, info.bytes_total) {
        (Some(durable), Some(total)) => format!("{} of {}", bytes(durable), bytes(total)),
        _ => String::new(),
    };
    fields(&[
        ("Id", text(job, "JobId")),
        ("Name", text(job, "Name")),
        ("Description", text(job, "Description")),
        ("Status", status(job)),
        ("Progress", format!("{} %", text(job, "Progress"))),
        ("Doing", info.doing.clone().unwrap_or_default()),
        ("Copied", copied),
        (
            "On the wire",
            info.bytes_wire.map(bytes).unwrap_or_default(),
        ),
        ("Free space", free_space(&info)),
        ("Transport", transport(&info)),
        ("Unread", unread(&info)),
        ("Consistency", consistency(&info)),
        ("Warning", info.warnings.join(" ")),
        ("Error", text(job, "ErrorCode")),
        ("What happened", info.error_msg.clone().unwrap_or_default()),
        ("Source", text(job, "SourceId")),
        ("Image", text(job, "ImageId")),
        ("Image name", text(job, "ImageName")),
        ("Created", text(job, "CreationTime")),
        ("Starts at", text(job, "ScheduledStartTime")),
        ("Started", text(job, "StartTime")),
        ("Ended", text(job, "EndTime")),
        ("Valid until", text(job, "ValidTime")),
        ("Repeats", runs::repeats(job)),
    ]) + &runs::list(job)
}

fn explain(explained: &Value) -> String {
    let mut lines = format!(
        "Now:  {}\nNext: {}\n",
        text(explained, "Now"),
        text(explained, "Next")
    );
    for reason in explained["Reasons"]["Reason"]
        .as_array()
        .into_iter()
        .flatten()
    {
        lines.push_str(&format!(
            "  - {}\n",
            printable(reason.as_str().unwrap_or_default())
        ));
    }
    let events: Vec<Vec<String>> = explained["Events"]["Event"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| {
            [
                "Time", "Event", "From", "To", "Run", "Epoch", "Actor", "Detail",
            ]
            .iter()
            .map(|field| text(event, field))
            .collect()
        })
        .collect();
    if !events.is_empty() {
        lines.push('\n');
        lines.push_str(&table(
            &[
                "TIME", "EVENT", "FROM", "TO", "RUN", "EPOCH", "BY", "DETAIL",
            ],
            &events,
        ));
    }
    lines
}

/// The answer as JSON, or nothing for people.
fn print_json(api: &Api, job: &Value) {
    if api.output == Output::Json {
        output::json(job);
    }
}

#[cfg(test)]
mod tests {
    use domain::disk::DiskIndex;
    use domain::status_info::CopiedFreeSpace;
    use serde_json::json;

    use super::*;

    fn running() -> Value {
        let info = StatusInfo {
            doing: Some("copying disks".to_owned()),
            bytes_durable: Some(3 << 30),
            bytes_total: Some(40 << 30),
            bytes_free: Some(5 << 30),
            copied_free_space: vec![CopiedFreeSpace {
                disk: DiskIndex(1),
                reason: "it is in use".to_owned(),
            }],
            ..StatusInfo::default()
        };
        json!({
            "JobId": "j-1", "Name": "web", "Status": "Running", "BusinessStatus": "Syncing", "Progress": 6.7,
            "SourceId": "s-1", "ImageId": "", "ErrorCode": "", "StatusInfo": info.to_json(),
        })
    }

    #[test]
    fn jobs_are_listed_with_both_statuses_and_an_empty_list_says_what_to_do() {
        let shown = list(&[running()]);
        let expected = "ID   NAME  STATUS           PROGRESS  SOURCE  IMAGE  ERROR\n\
                        j-1  web   Running/Syncing  6.7 %     s-1\n";
        assert_eq!(shown, expected);
        assert!(list(&[]).contains("wherry job create"));
    }

    #[test]
    fn a_job_is_shown_without_what_it_does_not_have() {
        let shown = show(&running());
        for line in [
            "Status         Running/Syncing",
            "Doing          copying disks",
            "Copied         3.00 GiB of 40.0 GiB",
            "Free space     5.00 GiB left out; copied of disk 1: it is in use",
        ] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{line} is not in\n{shown}"
            );
        }
        assert!(
            !shown.contains("Error") && !shown.contains("Image"),
            "{shown}"
        );
    }

    #[test]
    fn what_the_source_could_not_read_is_shown() {
        let mut job = running();
        job["StatusInfo"] = json!(r#"{"unreadable_ranges":2,"unreadable_bytes":1024}"#);
        let shown = show(&job);
        let says = "that the source can't read, in 2 ranges; the copy has zeros there";
        assert!(shown.contains("Unread") && shown.contains(says), "{shown}");
    }

    #[test]
    fn a_copy_that_is_not_one_moment_and_a_disk_in_use_are_shown() {
        let mut job = running();
        let status = StatusInfo {
            consistency: Some(Moment::Several),
            warnings: vec!["The disk /dev/vda is used for writing.".to_owned()],
            ..StatusInfo::default()
        };
        job["StatusInfo"] = json!(status.to_json());
        let shown = show(&job);
        for says in ["not one moment in time", "/dev/vda is used for writing"] {
            assert!(shown.contains(says), "{says}\n{shown}");
        }
    }

    #[test]
    fn an_explanation_has_sentences_and_the_history() {
        let explained = json!({
            "Now": "It waits for a slot.", "Next": "It starts when another job ends.",
            "Reasons": { "Reason": ["All 2 slots are taken."] },
            "Events": { "Event": [{
                "Time": "2026-01-01T00:00:00Z", "Event": "start", "From": "ready", "To": "preparing", "Run": 1, "Epoch": 0,
                "Actor": "api", "Detail": "",
            }] },
        });
        let shown = explain(&explained);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "Now:  It waits for a slot.",
                "Next: It starts when another job ends.",
                "  - All 2 slots are taken."
            ]
        );
        assert!(
            lines[5].starts_with("2026-01-01T00:00:00Z  start  ready  preparing  1"),
            "{shown}"
        );
    }

    #[test]
    fn disks_take_the_size_of_the_sources_unless_another_is_asked_for() {
        let source = json!({
            "SystemDiskSize": 8,
            "DataDisks": { "DataDisk": [{ "Index": 1, "Size": 100 }, { "Index": 2, "Size": 5 }] },
        });
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            create: Create,
        }
        let parse = |line: &str| <Only as clap::Parser>::parse_from(line.split(' ')).create;
        let plain = parse("create --source s");
        assert_eq!(plain.system_disk_gib(&source), SMALLEST_GIB);
        assert_eq!(
            plain.data_disks(&source).unwrap(),
            [(1, 100), (2, SMALLEST_GIB)]
        );
        assert_eq!(plain.parameters(), None);
        let asked = parse(
            "create --source s --system-disk-size 60 --data-disk 2:40 --checksum --bandwidth-limit 72kbit",
        );
        assert_eq!(asked.system_disk_gib(&source), 60);
        assert_eq!(asked.data_disks(&source).unwrap(), [(1, 100), (2, 40)]);
        assert_eq!(
            asked.parameters().as_deref(),
            Some(r#"{"bandwidth_limit":72,"checksum":true}"#)
        );
        assert!(
            parse("create --source s --data-disk 3:40")
                .data_disks(&source)
                .is_err()
        );
    }
}
