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
use service::ExitCode;
use smc::model::{
    self, CreateReplicationJob, DataDiskSize, DeleteReplicationJob, DescribeReplicationJobs, Done,
    ExplainReplicationJob, ExplainReplicationJobAnswer, Operation, ReplicationJob, SourceServer,
    StartReplicationJob, StopReplicationJob,
};

use crate::connection::{Api, Output};
use crate::failure::UsageError;
use crate::output::{self, bytes, fields, table};
use crate::source;
use tuning::Tuning;

/// The smallest disk that the API takes, in GiB.
const SMALLEST_GIB: u32 = 20;

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
    /// Changes a job. Its name and description can change at any time. Until the job has delivered, so can its
    /// validity and its speed, which a run takes up within seconds. Hours and images to keep can change also while it
    /// waits for its next run, the rest only before its first start.
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
    /// Shows a job's progress until it ends, or waits for its next run. Exit code 0 for a finished, waiting or stopped
    /// job, 1 for any other end.
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
    /// Description of the job, for people.
    #[arg(long)]
    description: Option<String>,
    /// Size of the image's system disk in GiB. Without it, that of the source's, at least 20.
    #[arg(long, value_name = "GIB")]
    system_disk_size: Option<u32>,
    /// Size of a data disk of the image, as INDEX:GIB. Others get the size of the source's, at least 20.
    #[arg(long, value_name = "INDEX:GIB", value_parser = data_disk)]
    data_disk: Vec<(u16, u32)>,
    /// Time at which the job starts by itself, as YYYY-MM-DDThh:mm:ssZ.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Time until which the job may be started, as YYYY-MM-DDThh:mm:ssZ: 7 to 90 days from now, 30 without it.
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
    /// Deliver an image every so many hours, 1 to 168, until `wherry job cutover`. Each is a full copy.
    #[arg(long, value_name = "HOURS", requires = "keep")]
    every: Option<i32>,
    /// Images that are kept, 1 to 10: when one more is delivered, the oldest is deleted.
    #[arg(long, value_name = "N", requires = "every")]
    keep: Option<i32>,
    #[command(flatten)]
    tuning: Tuning,
    /// Start it now.
    #[arg(long, conflicts_with = "at")]
    start: bool,
}

fn data_disk(text: &str) -> Result<(u16, u32), String> {
    let pair = text
        .split_once(':')
        .and_then(|(index, gib)| Some((index.parse().ok()?, gib.parse().ok()?)));
    pair.ok_or_else(|| "give it as INDEX:GIB, such as 1:40".to_owned())
}

/// Sizes of data disks as the API takes them; `None` for none.
fn sizes(of: &[(u16, u32)]) -> Option<Vec<DataDiskSize>> {
    let sizes = of.iter().map(|&(index, gib)| DataDiskSize {
        index: Some(index),
        size: Some(gib),
    });
    (!of.is_empty()).then(|| sizes.collect())
}

impl Job {
    pub(crate) async fn run(self, api: &Api) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(api).await?,
            Self::Modify(modify) => modify.run(api).await?,
            Self::Start(named) => {
                let id = named
                    .call(api, "started", |job_id| StartReplicationJob { job_id })
                    .await?;
                warn(api, &id).await?;
            }
            Self::Stop(named) => {
                let done = "stopping; what was copied is kept";
                named
                    .call(api, done, |job_id| StopReplicationJob { job_id })
                    .await?;
            }
            Self::Cutover(cut_over) => cut_over.run(api).await?,
            Self::Delete(named) => {
                named
                    .call(api, "being deleted", |job_id| DeleteReplicationJob {
                        job_id,
                    })
                    .await?;
            }
            Self::List => {
                let jobs = api.list(DescribeReplicationJobs::default()).await?;
                api.show(&jobs, |jobs| list(jobs));
            }
            Self::Show(named) => {
                let job = find(api, &named.job).await?;
                api.show(&job, show);
            }
            Self::Watch(named) => return watch::watch(api, &named.job).await,
            Self::Explain(named) => {
                let job_id = find(api, &named.job).await?.job_id;
                let explained = api.client.call(&ExplainReplicationJob { job_id }).await?;
                api.show(&explained, |explained| explain(explained));
            }
        }
        Ok(ExitCode::Ok)
    }
}

/// The job with this id or name.
async fn find(api: &Api, job: &str) -> anyhow::Result<ReplicationJob> {
    let mut request = DescribeReplicationJobs::default();
    if job.parse::<domain::JobId>().is_ok() {
        request.job_id = Some(vec![job.to_owned()]);
    } else {
        request.name = Some(job.to_owned());
    }
    let found = api.list(request).await?;
    match found.into_iter().next() {
        Some(found) => Ok(found),
        None => bail!("there is no job {job:?}: `wherry job list` shows all"),
    }
}

impl Named {
    /// Runs `request` with the job's id, prints that it is `done`, and returns the id.
    async fn call<O: Operation<Answer = Done>>(
        &self,
        api: &Api,
        done: &str,
        request: impl FnOnce(String) -> O,
    ) -> anyhow::Result<String> {
        let id = find(api, &self.job).await?.job_id;
        let answer = api.client.call(&request(id.clone())).await?;
        api.show(&answer, |_| format!("Job {}: {done}.\n", printable(&id)));
        Ok(id)
    }
}

impl Create {
    async fn run(self, api: &Api) -> anyhow::Result<()> {
        let source = source::find(api, &self.source).await?;
        let request = CreateReplicationJob {
            system_disk_size: Some(self.system_disk_gib(&source)),
            data_disk: sizes(&self.data_disks(&source)?),
            source_id: source.source_id,
            name: self.name.clone(),
            image_name: self.image_name.clone(),
            description: self.description.clone(),
            scheduled_start_time: self.at.clone(),
            valid_time: self.valid_until.clone(),
            run_once: self.every.map(|_| false),
            frequency: self.every,
            max_number_of_image_to_keep: self.keep,
            replication_parameters: self.parameters(),
            ..CreateReplicationJob::default()
        };
        let made = api.client.call(&request).await?;
        let job_id = made.job_id.clone();
        if self.start {
            api.client.call(&StartReplicationJob { job_id }).await?;
        }
        let id = printable(&made.job_id);
        api.show(&made, |_| match (self.start, &self.at) {
            (true, _) => format!("Job {id} is started. Watch it: wherry job watch {id}\n"),
            (false, Some(at)) => format!("Job {id} starts at {at}.\n"),
            (false, None) => format!("Job {id} is created. Start it: wherry job start {id}\n"),
        });
        warn(api, &made.job_id).await
    }

    fn system_disk_gib(&self, source: &SourceServer) -> u32 {
        let of_source = source.system_disk_size.unwrap_or(0);
        self.system_disk_size
            .unwrap_or_else(|| target_gib(of_source))
    }

    /// Every data disk of the source, with the size that was requested or its own.
    fn data_disks(&self, source: &SourceServer) -> anyhow::Result<Vec<(u16, u32)>> {
        let of_source = source.data_disks.iter().map(|disk| (disk.index, disk.size));
        let of_source: Vec<(u16, u64)> = of_source.collect();
        for (index, _) in &self.data_disk {
            if !of_source.iter().any(|(known, _)| known == index) {
                return Err(
                    UsageError(format!("the source has no data disk with index {index}")).into(),
                );
            }
        }
        let asked = |index: u16| {
            self.data_disk
                .iter()
                .find(|(asked, _)| *asked == index)
                .map(|(_, gib)| *gib)
        };
        Ok(of_source
            .into_iter()
            .map(|(index, gib)| (index, asked(index).unwrap_or_else(|| target_gib(gib))))
            .collect())
    }

    fn parameters(&self) -> Option<String> {
        self.tuning.applied_to(&ReplicationParameters::default())
    }
}

/// The size of a disk in the image, if none was requested.
fn target_gib(source_gib: u64) -> u32 {
    u32::try_from(source_gib)
        .unwrap_or(u32::MAX)
        .max(SMALLEST_GIB)
}

/// Status, and within Running the part of the run.
fn status(job: &ReplicationJob) -> String {
    match job.business_status.as_deref().unwrap_or_default() {
        "" => job.status.clone(),
        part => format!("{}/{part}", job.status),
    }
}

fn info(job: &ReplicationJob) -> StatusInfo {
    // An addition of a later version is no reason to show nothing.
    StatusInfo::from_json(job.status_info.as_deref().unwrap_or_default()).unwrap_or_default()
}

fn progress(job: &ReplicationJob) -> String {
    format!("{:?} %", job.progress)
}

/// The transport of the disks, and the reason for it.
fn transport(info: &StatusInfo) -> String {
    let parts = [&info.transport, &info.transport_reason];
    let known: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    known.join(": ")
}

/// Bytes that were left out as free, and disks whose free space is copied instead.
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

/// Ranges that the source could not read.
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

/// The relation of the copy to one moment in time; empty if the agent has not reported it.
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

fn list(jobs: &[ReplicationJob]) -> String {
    if jobs.is_empty() {
        return "No jobs yet. `wherry job create --source NAME` makes one.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                job.job_id.clone(),
                job.name.clone(),
                status(job),
                progress(job),
                job.source_id.clone(),
                job.image_id.clone().unwrap_or_default(),
                job.error_code.clone(),
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

fn show(job: &ReplicationJob) -> String {
    let info = info(job);
    let copied = match (info.bytes_durable, info.bytes_total) {
        (Some(durable), Some(total)) => format!("{} of {}", bytes(durable), bytes(total)),
        _ => String::new(),
    };
    fields(&[
        ("Id", job.job_id.clone()),
        ("Name", job.name.clone()),
        ("Description", job.description.clone()),
        ("Status", status(job)),
        ("Progress", progress(job)),
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
        ("Error", job.error_code.clone()),
        ("What happened", info.error_msg.clone().unwrap_or_default()),
        ("Source", job.source_id.clone()),
        ("Image", job.image_id.clone().unwrap_or_default()),
        ("Image name", job.image_name.clone()),
        ("Created", job.creation_time.clone()),
        (
            "Starts at",
            job.scheduled_start_time.clone().unwrap_or_default(),
        ),
        ("Started", job.start_time.clone().unwrap_or_default()),
        ("Ended", job.end_time.clone().unwrap_or_default()),
        ("Valid until", job.valid_time.clone()),
        ("Repeats", runs::repeats(job)),
    ]) + &runs::list(job)
}

fn explain(explained: &ExplainReplicationJobAnswer) -> String {
    let mut lines = format!(
        "Now:  {}\nNext: {}\n",
        printable(&explained.now),
        printable(&explained.next)
    );
    for reason in explained.reasons.iter() {
        lines.push_str(&format!("  - {}\n", printable(reason)));
    }
    let events: Vec<Vec<String>> = explained
        .events
        .iter()
        .map(|event| {
            vec![
                event.time.clone(),
                event.event.clone(),
                event.from.clone(),
                event.to.clone(),
                event.run.to_string(),
                event.epoch.to_string(),
                event.actor.clone(),
                event.detail.clone(),
            ]
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
fn print_json(api: &Api, job: &ReplicationJob) {
    if api.output == Output::Json {
        output::json(model::to_json(job));
    }
}

#[cfg(test)]
mod tests {
    use domain::disk::DiskIndex;
    use domain::status_info::CopiedFreeSpace;
    use smc::model::{JobEvent, SourceDataDisk};

    use super::*;

    fn running() -> ReplicationJob {
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
        ReplicationJob {
            job_id: "j-1".to_owned(),
            name: "web".to_owned(),
            status: "Running".to_owned(),
            business_status: Some("Syncing".to_owned()),
            progress: 6.7,
            source_id: "s-1".to_owned(),
            status_info: Some(info.to_json()),
            ..ReplicationJob::default()
        }
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
        job.status_info = Some(r#"{"unreadable_ranges":2,"unreadable_bytes":1024}"#.to_owned());
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
        job.status_info = Some(status.to_json());
        let shown = show(&job);
        for says in ["not one moment in time", "/dev/vda is used for writing"] {
            assert!(shown.contains(says), "{says}\n{shown}");
        }
    }

    #[test]
    fn an_explanation_has_sentences_and_the_history() {
        let event = JobEvent {
            time: "2026-01-01T00:00:00Z".to_owned(),
            event: "start".to_owned(),
            from: "ready".to_owned(),
            to: "preparing".to_owned(),
            run: 1,
            epoch: 0,
            actor: "api".to_owned(),
            detail: String::new(),
        };
        let explained = ExplainReplicationJobAnswer {
            now: "It waits for a slot.".to_owned(),
            next: "It starts when another job ends.".to_owned(),
            reasons: ["All 2 slots are taken.".to_owned()].into_iter().collect(),
            events: [event].into_iter().collect(),
            ..ExplainReplicationJobAnswer::default()
        };
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
        let disk = |index, size| SourceDataDisk {
            index,
            size,
            ..SourceDataDisk::default()
        };
        let source = SourceServer {
            system_disk_size: Some(8),
            data_disks: [disk(1, 100), disk(2, 5)].into_iter().collect(),
            ..SourceServer::default()
        };
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
