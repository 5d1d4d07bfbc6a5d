//! The facts that a run needs, its observations, and the end of a job.

use std::time::Duration;

use domain::disk::{DiskIdentity, DiskRecord, SourceDisk, TargetDisk, find_again};
use domain::message::TraceHeaders;
use domain::parameters::ReplicationParameters;
use domain::status_info::{CopiedFreeSpace, StatusInfo};
use domain::{Epoch, InstanceId, JobId, SourceId, TenantId};
use sqlx::types::Json;

use crate::bytes::BytesHeld;
use crate::job::create::disks_of_source;
use crate::row::{parameters, parse, signed, unsigned};
use crate::source::disk_index;
use crate::{Store, StoreError, image_build};

/// A disk to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDisk {
    /// Path of the disk on the source when the job was created.
    pub path: String,
    /// Bytes of the source's disk when the job was created.
    pub source_bytes: u64,
    /// The disk of the image.
    pub target: TargetDisk,
    /// Identity of the source's disk when the job was created; `None` for a job of an earlier version.
    pub identity: Option<DiskIdentity>,
    /// The same disk as the source has it now, or another disk in its place; `None` if the agent finds neither.
    pub found: Option<SourceDisk>,
}

impl RunDisk {
    /// Returns the source's disk as it was when the job was created.
    pub fn as_created(&self) -> DiskRecord {
        DiskRecord {
            index: self.target.index,
            path: self.path.clone(),
            size_bytes: self.source_bytes,
            identity: self.identity.clone(),
        }
    }
}

/// The facts that a worker needs to drive a run.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Tenant of the job.
    pub tenant: TenantId,
    /// Source of the job.
    pub source_id: SourceId,
    /// Key of the source's agent (SubjectPublicKeyInfo, DER).
    pub public_key: Vec<u8>,
    /// True if the job delivers again after this run.
    pub rests: bool,
    /// Parameters of the copy.
    pub parameters: ReplicationParameters,
    /// Silence of the agent since the run last made progress, measured when this was read.
    pub silent_for: Duration,
    /// Bytes that crossed the wire in this run under earlier leases, as far as they were recorded.
    pub bytes_wire: u64,
    /// Disks whose free space this run copies although the job would skip it, as far as they were recorded.
    pub copied_free_space: Vec<CopiedFreeSpace>,
    /// All disks.
    pub disks: Vec<RunDisk>,
}

/// Inputs of others while a run is observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The tenant's present parameters for the copy.
    pub parameters: ReplicationParameters,
    /// Disks whose free space the agent copies although the job would skip it. `None` without an assignment of this
    /// epoch.
    pub copied_free_space: Option<Vec<CopiedFreeSpace>>,
    /// Bytes that the tenant has stored, where a quota bounds them.
    pub bytes: Option<BytesHeld>,
}

/// An observation of the lease holder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// Progress and present activity, as the API shows them.
    pub info: StatusInfo,
    /// Bytes of the source's disks that are durable on the target.
    pub bytes_durable: u64,
    /// Bytes of all disks of the source.
    pub bytes_total: u64,
    /// The run's instance.
    pub instance_id: Option<InstanceId>,
    /// Bytes that the copy and the unfinished image take in the stores. `None` before the receiver's first status.
    pub bytes_stored: Option<u64>,
    /// True for the first observation of the disks under this lease. The bytes may then be fewer than before.
    pub is_first: bool,
}

impl Store {
    /// Returns the facts about a job for its run; `None` if the job is gone.
    ///
    /// # Errors
    /// The database fails, or holds a value that can't be read.
    pub async fn run_facts(&self, job_id: &JobId) -> Result<Option<RunFacts>, StoreError> {
        let job = sqlx::query!(
            r#"
            select job.tenant, job.source_id, job.replication_parameters, source.public_key, job.run,
                coalesce(extract(epoch from now() - job.silent_since), 0)::float8 as "silent_secs!",
                job.observed as "observed: Json<StatusInfo>",
                job.frequency_hours is not null and not job.cut_over as "rests!"
            from job join source on source.id = job.source_id where job.id = $1
            "#,
            job_id.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(job) = job else { return Ok(None) };
        let rows = sqlx::query!(
            r#"
            select job_disk.index, job_disk.size_gib, coalesce(job_disk.path, source_disk.path) as path,
                coalesce(job_disk.source_bytes, source_disk.size_bytes) as source_bytes,
                job_disk.identity as "identity: Json<DiskIdentity>"
            from job_disk left join source_disk on source_disk.source_id = $2 and source_disk.index = job_disk.index
            where job_disk.job_id = $1 order by job_disk.index
            "#,
            job_id.as_str(),
            job.source_id,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut disks = rows
            .into_iter()
            .map(|disk| {
                Ok(RunDisk {
                    path: disk.path.unwrap_or_default(),
                    source_bytes: unsigned(
                        "job_disk.source_bytes",
                        disk.source_bytes.unwrap_or(0),
                    )?,
                    identity: disk.identity.map(|Json(identity)| identity),
                    found: None,
                    target: TargetDisk {
                        index: disk_index("job_disk.index", disk.index)?,
                        size_gib: u32::try_from(disk.size_gib).map_err(|_| {
                            StoreError::UnknownValue {
                                column: "job_disk.size_gib",
                                value: disk.size_gib.to_string(),
                            }
                        })?,
                    },
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let source_disks =
            disks_of_source(&mut *self.pool.acquire().await?, &job.source_id).await?;
        find_disks(&mut disks, &source_disks);
        Ok(Some(RunFacts {
            tenant: parse("job.tenant", &job.tenant)?,
            source_id: parse("job.source_id", &job.source_id)?,
            public_key: job.public_key,
            rests: job.rests,
            parameters: parameters(&job.replication_parameters)?,
            silent_for: Duration::try_from_secs_f64(job.silent_secs).unwrap_or_default(),
            bytes_wire: of_this_run(&job.observed.0, job.run)
                .and_then(|observed| observed.bytes_wire)
                .unwrap_or(0),
            copied_free_space: of_this_run(&job.observed.0, job.run)
                .map(|observed| observed.copied_free_space.clone())
                .unwrap_or_default(),
            disks,
        }))
    }

    /// Returns true if the source's agent reported lately.
    ///
    /// # Errors
    /// The database fails.
    pub async fn source_is_online(&self, source_id: &SourceId) -> Result<bool, StoreError> {
        let online = sqlx::query_scalar!(
            r#"select last_seen_at > now() - make_interval(secs => $2) as "online!" from source where id = $1"#,
            source_id.as_str(),
            domain::source::OFFLINE_AFTER.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(online.unwrap_or(false))
    }

    /// Writes an observation of the lease holder, and returns the present inputs of tenant and agent. Progress resets
    /// the count of lost leases. `None` if the lease is over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn observe(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        observation: &Observation,
    ) -> Result<Option<Wanted>, StoreError> {
        let row = sqlx::query!(
            r#"
            with stored as (
                update instance set bytes_stored = $8 where job_id = $1 and epoch = $2 and bytes_stored <> $8)
            update job set
                observed = $3,
                bytes_durable = case when $7 then $4 else greatest(bytes_durable, $4) end,
                bytes_total = $5,
                instance_id = $6,
                leases_lost = case when not $7 and $4 > bytes_durable then 0 else leases_lost end,
                silent_since = case when not $7 and $4 > bytes_durable then null else silent_since end,
                parks = case when not $7 and $4 > bytes_durable then 0 else parks end
            where id = $1 and epoch = $2 and exists (
                select 1 from job_lease where job_id = $1 and job_lease.epoch = $2 and expires_at > now())
            returning replication_parameters,
                (select copied_free_space from assignment where assignment.job_id = job.id and assignment.epoch = job.epoch)
                    as "copied_free_space: Json<Vec<CopiedFreeSpace>>",
                (select max_bytes from tenant where tenant.id = job.tenant) as max_bytes,
                (select bytes_of_tenant(tenant.id) from tenant where tenant.id = job.tenant and max_bytes is not null) as held
            "#,
            job_id.as_str(),
            epoch.0,
            Json(&observation.info) as _,
            signed(observation.bytes_durable),
            signed(observation.bytes_total),
            observation.instance_id.as_ref().map(InstanceId::as_str),
            observation.is_first,
            observation.bytes_stored.map(signed),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(Wanted {
                parameters: parameters(&row.replication_parameters)?,
                copied_free_space: row.copied_free_space.map(|copied| copied.0),
                bytes: BytesHeld::read(row.held, row.max_bytes)?,
            })
        })
        .transpose()
    }

    /// Removes a job whose resources are all gone; its history stays. `false` if the job was gone already or the epoch
    /// is over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_job(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        worker: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let removed = sqlx::query!(
            "delete from job where id = $1 and epoch = $2 and state = 'deleting' returning tenant, source_id, run",
            job_id.as_str(),
            epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(removed) = removed else {
            return Ok(false);
        };
        sqlx::query!(
            "insert into job_event (job_id, tenant, event, from_state, to_state, run, epoch, actor)
             values ($1, $2, 'removed', 'deleting', 'deleting', $3, $4, $5)",
            job_id.as_str(),
            removed.tenant,
            removed.run,
            epoch.0,
            worker,
        )
        .execute(&mut *transaction)
        .await?;
        image_build::abandon_images(&mut transaction, job_id, &TraceHeaders::new()).await?;
        crate::source::delete::remove_if_over(&mut transaction, &removed.source_id).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Matches the disks of a run with the disks that the source has now.
fn find_disks(disks: &mut [RunDisk], source_disks: &[SourceDisk]) {
    let then: Vec<DiskRecord> = disks.iter().map(RunDisk::as_created).collect();
    let now: Vec<DiskRecord> = source_disks.iter().map(DiskRecord::from).collect();
    for (disk, found) in disks.iter_mut().zip(find_again(&then, &now)) {
        disk.found = found.map(|position| source_disks[position].clone());
    }
}

/// Returns the observation if it is of this run. The row may still hold that of an earlier run.
fn of_this_run(observed: &StatusInfo, run: i32) -> Option<&StatusInfo> {
    Some(observed).filter(|observed| observed.run == Some(run))
}
