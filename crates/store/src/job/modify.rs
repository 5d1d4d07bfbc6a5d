//! Changes of a job. Name and description can be changed at any time. Validity and the limit of the copy can be changed
//! until the job has delivered. The schedule can also be changed between two runs. Everything else can be changed only
//! before the first start.

use domain::disk::TargetDisk;
use domain::job::State;
use domain::name::Name;
use domain::parameters::{InvalidParameters, ReplicationParameters};
use domain::target_disks::{self, InvalidTargetDisks};
use domain::{JobId, TenantId, Timestamp};

use super::create::{
    disks_of_source, insert_disks, is_schedulable, is_valid_until, now, set_timer,
};
use super::increments;
use crate::network::{JobNetwork, NetworkChange, NetworkRefusal};
use crate::row::parse;
use crate::{Store, StoreError, Transaction};

/// Changes of a job; absent parts stay.
#[derive(Debug, Clone, Default)]
pub struct JobChange {
    /// The new name.
    pub name: Option<Name>,
    /// The new description.
    pub description: Option<String>,
    /// The new end of the validity.
    pub valid_until: Option<Timestamp>,
    /// The new name of the image.
    pub image_name: Option<Name>,
    /// The new `ReplicationParameters`. After the first start only two of them may differ: the limit, which the driver
    /// of a run applies, and the consistency, which the next run applies.
    pub replication_parameters: Option<String>,
    /// New sizes. Other disks keep theirs.
    pub disks: Vec<TargetDisk>,
    /// The new start.
    pub scheduled_start: Option<Timestamp>,
    /// Requirements for the job's network.
    pub network: NetworkChange,
    /// True if the call requests an image, which every job here delivers.
    pub names_target: bool,
    /// The new hours from one start to the next.
    pub frequency_hours: Option<i32>,
    /// The new number of images that are kept.
    pub images_to_keep: Option<i32>,
}

impl JobChange {
    /// Returns true if the change includes parts that a started job no longer applies.
    fn is_for_unstarted_jobs(&self, present: &ReplicationParameters) -> bool {
        self.image_name.is_some()
            || !self.asked().is_none_or(|asked| {
                asked.is_ok_and(|asked| asked.may_replace_those_of_a_started_job(present))
            })
            || !self.disks.is_empty()
            || self.scheduled_start.is_some()
            || !self.network.is_empty()
            || self.names_target
    }

    fn asked(&self) -> Option<Result<ReplicationParameters, InvalidParameters>> {
        let text = self.replication_parameters.as_deref();
        text.map(ReplicationParameters::parse)
    }

    /// Returns true if the change includes parts that a run applies at its start.
    fn is_for_resting_jobs(&self, present: &ReplicationParameters) -> bool {
        let changes = |asked: &ReplicationParameters| asked.consistency != present.consistency;
        self.asked()
            .is_some_and(|asked| asked.as_ref().is_ok_and(changes))
    }

    /// Returns true if the change includes parts that matter only to a job that will still copy.
    fn is_for_undelivered_jobs(&self) -> bool {
        self.valid_until.is_some() || self.replication_parameters.is_some()
    }

    /// Returns true if the change includes parts that only jobs with repeated deliveries have.
    fn is_for_increments(&self) -> bool {
        self.frequency_hours.is_some() || self.images_to_keep.is_some()
    }

    /// Returns the states in which the whole change is allowed.
    fn allowed_in(&self, present: &ReplicationParameters) -> Vec<State> {
        State::ALL
            .into_iter()
            .filter(|state| *state != State::Deleting)
            .filter(|state| *state == State::Ready || !self.is_for_unstarted_jobs(present))
            .filter(|state| !state.is_running() || !self.is_for_resting_jobs(present))
            .filter(|state| {
                matches!(state, State::Ready | State::Waiting) || !self.is_for_increments()
            })
            .filter(|state| {
                !self.is_for_undelivered_jobs()
                    || !matches!(state, State::Finished | State::Expired)
            })
            .collect()
    }
}

/// Outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModifyJob {
    /// The job was changed.
    Modified,
    /// The job's state does not allow the change; other states do.
    Refused {
        /// The state of the job.
        state: State,
        /// States in which the same change is allowed.
        allowed: Vec<State>,
    },
    /// The job delivers once, so it has neither an interval nor images to keep.
    DeliversOnce,
    /// Another job of the tenant has that name.
    NameTaken,
    /// The sizes don't fit the source.
    Disks(InvalidTargetDisks),
    /// The job can't have that network.
    Network(NetworkRefusal),
    /// See [`super::create::CreateRefusal::ScheduledStart`].
    ScheduledStart,
    /// See [`super::create::CreateRefusal::ValidUntil`]. The validity may also end before the scheduled start.
    ValidUntil,
    /// The job does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Changes a job.
    pub async fn modify_job(
        &self,
        tenant: &TenantId,
        id: &JobId,
        change: &JobChange,
    ) -> Result<ModifyJob, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        match modify(&mut transaction, tenant, id, change).await {
            Ok(ModifyJob::Modified) => {
                transaction.commit().await?;
                Ok(ModifyJob::Modified)
            }
            Ok(refused) => Ok(refused),
            Err(error) if error.violates("job_name") => Ok(ModifyJob::NameTaken),
            Err(error) => Err(error),
        }
    }
}

async fn modify(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    id: &JobId,
    change: &JobChange,
) -> Result<ModifyJob, StoreError> {
    let Some(job) = sqlx::query!(
        "select state, source_id, region_id, created_at, valid_until, frequency_hours, scheduled_start_at, net_mode, vswitch_id, vpc_id,
             replication_parameters
         from job where tenant = $1 and id = $2 for update",
        tenant.as_str(),
        id.as_str()
    )
    .fetch_optional(&mut **transaction)
    .await?
    else {
        return Ok(ModifyJob::NotFound);
    };
    let state: State = parse("job.state", &job.state)?;
    let present = crate::row::parameters(&job.replication_parameters)?;
    let allowed = change.allowed_in(&present);
    if !allowed.contains(&state) {
        return Ok(ModifyJob::Refused { state, allowed });
    }
    if change.is_for_increments() && job.frequency_hours.is_none() {
        return Ok(ModifyJob::DeliversOnce);
    }
    let current = JobNetwork {
        net_mode: job.net_mode,
        vswitch_id: job.vswitch_id,
        vpc_id: job.vpc_id,
    };
    let network = match change
        .network
        .over(current, transaction, tenant, &job.region_id)
        .await?
    {
        Ok(network) => network,
        Err(unfit) => return Ok(ModifyJob::Network(unfit)),
    };
    let now = now(transaction).await?;
    let valid_until = change.valid_until.unwrap_or(job.valid_until.into());
    if let Some(until) = change.valid_until {
        // The validity counts from the job's creation, and never ends in the past.
        if !is_valid_until(until, job.created_at.into()) || until <= now {
            return Ok(ModifyJob::ValidUntil);
        }
        let starts_too_late = |at: Timestamp| state == State::Ready && at >= until;
        if change.scheduled_start.is_none()
            && job
                .scheduled_start_at
                .map(Timestamp::from)
                .is_some_and(starts_too_late)
        {
            return Ok(ModifyJob::ValidUntil);
        }
        set_timer(transaction, id, "expire", until).await?;
    }
    if let Some(at) = change.scheduled_start {
        if !is_schedulable(at, now, valid_until) {
            return Ok(ModifyJob::ScheduledStart);
        }
        set_timer(transaction, id, "start", at).await?;
    }
    if !change.disks.is_empty() {
        let source = disks_of_source(transaction, &job.source_id).await?;
        match target_disks::choose(&source, &change.disks) {
            Ok(_) => insert_disks(transaction, id, &job.source_id, &change.disks).await?,
            Err(invalid) => return Ok(ModifyJob::Disks(invalid)),
        }
    }
    sqlx::query!(
        "update job set name = coalesce($2, name), description = coalesce($3, description), valid_until = $4,
             image_name = coalesce($5, image_name), replication_parameters = coalesce($6, replication_parameters),
             scheduled_start_at = coalesce($7, scheduled_start_at), net_mode = $8, vswitch_id = $9, vpc_id = $10
         where id = $1",
        id.as_str(),
        change.name.as_ref().map(Name::as_str),
        change.description,
        valid_until.as_datetime(),
        change.image_name.as_ref().map(Name::as_str),
        change.replication_parameters,
        change.scheduled_start.map(Timestamp::as_datetime),
        network.net_mode,
        network.vswitch_id,
        network.vpc_id,
    )
    .execute(&mut **transaction)
    .await?;
    if change.is_for_increments() {
        increments::change(
            transaction,
            id,
            change.frequency_hours,
            change.images_to_keep,
        )
        .await?;
    }
    Ok(ModifyJob::Modified)
}
