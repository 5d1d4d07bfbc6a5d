//! DescribeReplicationJobs.

use domain::disk::{DiskInUse, DiskIndex};
use domain::job::State;
use domain::job::progress::progress;
use domain::parameters::{Consistency, ReplicationParameters};
use domain::status_info::StatusInfo;
use smc::model::{
    DescribeReplicationJobs, DescribeReplicationJobsAnswer, JobDataDisk, JobDisks, JobWholeDisk,
    ReplicationJob,
};
use store::job::describe::{Job, JobDisk, JobFilter};
use store::tag::TaggedKind;

use super::{increments, partitions, tag};
use crate::Refusal;
use crate::operation::{Call, Effect, Handle, Resource, Terms, page};

impl Handle for DescribeReplicationJobs {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: &[Resource::any("replicationJob").in_asked_region()],
        refusals: tag::FILTER_REFUSALS,
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<DescribeReplicationJobsAnswer, Refusal> {
        let page = page(self.page_number, self.page_size);
        // No job has these properties, so a filter by them finds none.
        let is_of_none = self.job_type.is_some_and(|kind| kind != 0)
            || self.instance_id.is_some()
            || self.resource_group_id.is_some();
        let mut filter = JobFilter {
            ids: self.job_id,
            tags: tag::filters(self.tag)?,
            source_ids: self.source_id,
            name: self.name,
            workgroup_id: self.workgroup_id,
            region_id: self.region_id,
            status: self.status.and_then(|asked| asked.as_str().parse().ok()),
            business_status: (self.business_status).and_then(|asked| asked.as_str().parse().ok()),
        };
        if is_of_none {
            filter.ids = Some(Vec::new());
        }
        let listed = call.gateway.store.jobs(&call.tenant, &filter, page).await?;
        let ids = listed.rows.iter().map(|job| job.id.to_string());
        let tags = tag::of(&call, TaggedKind::Job, ids).await?;
        Ok(DescribeReplicationJobsAnswer {
            page_number: page.number,
            page_size: page.size,
            total_count: listed.total,
            replication_jobs: listed.rows.iter().map(|job| show(job, &tags)).collect(),
        })
    }
}

fn size(disk: &JobDisk) -> u32 {
    disk.target.size_gib
}

fn data_disk(disk: &JobDisk) -> JobDataDisk {
    JobDataDisk {
        index: disk.target.index.0,
        size: size(disk),
        parts: partitions::of_job(disk.target.index, &disk.partitions),
    }
}

fn whole_disk(disk: &JobDisk) -> JobWholeDisk {
    JobWholeDisk {
        size: size(disk),
        parts: partitions::of_job_with_paths(&disk.partitions),
    }
}

fn show(job: &Job, tags: &tag::Shown) -> ReplicationJob {
    let system = job
        .disks
        .iter()
        .find(|disk| disk.target.index == DiskIndex::SYSTEM);
    let data = job
        .disks
        .iter()
        .filter(|disk| disk.target.index != DiskIndex::SYSTEM);
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let business_status = job.state.business_status();
    ReplicationJob {
        job_id: job.id.to_string(),
        source_id: job.source_id.to_string(),
        name: job.name.clone(),
        description: job.description.clone(),
        region_id: job.region_id.clone(),
        status: job.state.status().to_string(),
        business_status: business_status.map(|status| status.to_string()),
        progress: progress(job.state, job.furthest, job.bytes_durable, job.bytes_total),
        target_type: job.target_type.clone(),
        system_disk_size: system.map(size),
        data_disks: data.clone().map(data_disk).collect(),
        system_disk_parts: system
            .and_then(|disk| partitions::of_job(DiskIndex::SYSTEM, &disk.partitions)),
        disks: JobDisks {
            system: system.map(whole_disk),
            data: data.map(whole_disk).collect(),
        },
        net_mode: job.net_mode,
        v_switch_id: optional(&job.vswitch_id),
        vpc_id: optional(&job.vpc_id),
        image_name: job.image_name.clone(),
        image_id: job.image_id.as_ref().map(ToString::to_string),
        transition_instance_id: job.instance_id.as_ref().map(ToString::to_string),
        replication_parameters: job.replication_parameters.clone(),
        run_once: job.increments.is_none(),
        frequency: job.increments.map(|increments| increments.frequency_hours),
        max_number_of_image_to_keep: job.increments.map(|increments| increments.images_to_keep),
        replication_job_runs: increments::runs(&job.runs),
        job_type: 0,
        creation_time: job.created_at.to_string(),
        start_time: job.started_at.map(|at| at.to_string()),
        end_time: job.ended_at.map(|at| at.to_string()),
        scheduled_start_time: job.scheduled_start_at.map(|at| at.to_string()),
        valid_time: job.valid_until.to_string(),
        error_code: job.failure.as_ref().map_or("", |(code, _)| code).to_owned(),
        status_info: status_info(job),
        workgroup_id: job.workgroup_id.as_ref().map(ToString::to_string),
        tags: tags.of(job.id.as_str()),
    }
}

/// Returns possible causes of failure of an unfinished run, and warnings for the owner about a source that works.
fn warnings(job: &Job) -> Vec<String> {
    let parameters = ReplicationParameters::parse(&job.replication_parameters);
    let matters = parameters.is_ok_and(|asked| asked.consistency == Consistency::Crash);
    let in_use = job.disks.iter().filter_map(|disk| disk.in_use.as_ref());
    in_use
        .filter(|_| matters && job.state.may_copy())
        .map(DiskInUse::warning)
        .chain(job.source_warning.clone())
        .collect()
}

/// Returns the known facts about the run, and the reason for its failure. Reports of an earlier run don't count.
fn status_info(job: &Job) -> Option<String> {
    let is_of_this_run = job.observed.run.is_none_or(|run| run == job.run.0);
    let mut info = if is_of_this_run {
        job.observed.clone()
    } else {
        StatusInfo::default()
    };
    if !job.state.is_running() {
        info.doing = None;
        info.rate_bytes_per_sec = None;
        info.eta_secs = None;
    }
    if let Some((code, message)) = &job.failure {
        info.error_code = Some(code.clone());
        info.error_msg = Some(message.clone());
    }
    if let Some(position) = job.queue_position {
        info.queue_position = Some(position);
        info.doing = Some(format!(
            "waiting for a slot, number {position} in the queue"
        ));
    }
    if job.state == State::Preparing && info.doing.is_none() {
        info.doing = Some("waiting for a worker".to_owned());
    }
    if job.bytes_total > 0 {
        info.bytes_durable = Some(job.bytes_durable);
        info.bytes_total = Some(job.bytes_total);
    }
    if job.run.0 > 0 {
        info.run = Some(job.run.0);
    }
    info.warnings = warnings(job);
    (info != StatusInfo::default()).then(|| info.to_json())
}
