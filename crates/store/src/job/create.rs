//! Creation of jobs.
//!
//! The tenant's row is locked first. Quota, name and token are then counted and claimed without another creation in
//! between. Wall clocks are compared with Postgres' time only.

use std::time::Duration;

use domain::disk::{DiskIdentity, DiskLayout, SourceDisk, SourcePartition, TargetDisk};
use domain::name::Name;
use domain::source::SourceState;
use domain::tag::Tag;
use domain::target_disks::{self, InvalidTargetDisks};
use domain::{JobId, SourceId, TenantId, Timestamp};
use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::{Increments, TIMER_CHANNEL};
use crate::client_token::{self, Claim, ClientToken};
use crate::network::{self, JobNetwork, NetworkChange, NetworkRefusal};
use crate::row::parse;
use crate::source::{DiskFacts, disk, offline_after_secs};
use crate::tag::{self, TaggedKind};
use crate::{Store, StoreError, Transaction};

/// Longest time from now to a scheduled start.
pub const SCHEDULE_AHEAD: Duration = days(30);
/// The shortest validity of a job, from its creation.
pub const SHORTEST_VALIDITY: Duration = days(7);
/// The longest validity of a job, from its creation.
pub const LONGEST_VALIDITY: Duration = days(90);
/// The validity of a job if the call names none.
pub const DEFAULT_VALIDITY: Duration = days(30);

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 60 * 60)
}

/// A job to be created; its parts are checked as far as possible without the database.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    /// Source of the job.
    pub source_id: &'a SourceId,
    /// Region of the job's image.
    pub region_id: &'a str,
    /// The gateway's region, which every tenant has.
    pub own_region: &'a str,
    /// Name of the job. The default is derived from the job's id.
    pub name: Option<&'a Name>,
    /// Description of the job, empty for none.
    pub description: &'a str,
    /// Name of the job's image. The default is derived from the job's id.
    pub image_name: Option<&'a Name>,
    /// `ReplicationParameters`, unchanged.
    pub replication_parameters: &'a str,
    /// Requested sizes. Other disks of the source get their own size.
    pub disks: &'a [TargetDisk],
    /// Time of the scheduled start.
    pub scheduled_start: Option<Timestamp>,
    /// End of the validity.
    pub valid_until: Option<Timestamp>,
    /// Schedule of repeated deliveries; `None` for a job that delivers once.
    pub increments: Option<Increments>,
    /// Requirements for the network of the copy.
    pub network: &'a NetworkChange,
    /// Tags of the job.
    pub tags: &'a [Tag],
    /// Client token of the call.
    pub client_token: Option<ClientToken<'a>>,
}

/// Outcome of a request for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateJob {
    /// The job was created.
    Created(JobId),
    /// The same call created this job before.
    Repeated(JobId),
    /// Nothing was created.
    Refused(CreateRefusal),
}

/// Reason why no job was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateRefusal {
    /// The token belongs to another call.
    TokenMismatch,
    /// The tenant has no such region.
    RegionNotFound,
    /// The source does not exist, or belongs to another tenant.
    SourceNotFound,
    /// The source is not Available.
    SourceState(SourceState),
    /// The tenant has as many jobs as it may have.
    Quota {
        /// Number of jobs that the tenant may have.
        limit: i32,
    },
    /// Another job of the tenant has the name.
    NameTaken,
    /// The sizes don't fit the source.
    Disks(InvalidTargetDisks),
    /// The job can't have that network.
    Network(NetworkRefusal),
    /// The start is not within [`SCHEDULE_AHEAD`] from now, or is after the end of the validity.
    ScheduledStart,
    /// The validity does not end between [`SHORTEST_VALIDITY`] and [`LONGEST_VALIDITY`] from now.
    ValidUntil,
}

impl Store {
    /// Creates a job, or returns the reason for the refusal.
    pub async fn create_job(
        &self,
        tenant: &TenantId,
        new: &NewJob<'_>,
    ) -> Result<CreateJob, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        match create(&mut transaction, tenant, new).await {
            Ok(created) => {
                match created {
                    CreateJob::Created(_) => transaction.commit().await?,
                    CreateJob::Repeated(_) | CreateJob::Refused(_) => {
                        transaction.rollback().await?
                    }
                }
                Ok(created)
            }
            Err(error) if error.violates("job_name") => {
                Ok(CreateJob::Refused(CreateRefusal::NameTaken))
            }
            Err(error) => Err(error),
        }
    }
}

async fn create(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    new: &NewJob<'_>,
) -> Result<CreateJob, StoreError> {
    let refused = |refusal| Ok(CreateJob::Refused(refusal));
    let limit = lock_tenant(transaction, tenant).await?;
    let id = JobId::generate();
    if let Some(token) = new.client_token {
        match client_token::claim(transaction, tenant, token, &json!({ "JobId": id })).await? {
            Claim::New => {}
            Claim::Repeated(answer) => {
                let earlier = answer["JobId"].as_str().unwrap_or_default();
                return Ok(CreateJob::Repeated(parse("client_token.answer", earlier)?));
            }
            Claim::Mismatch => return refused(CreateRefusal::TokenMismatch),
        }
    }
    if new.region_id != new.own_region
        && !network::has_region(transaction, tenant, new.region_id).await?
    {
        return refused(CreateRefusal::RegionNotFound);
    }
    let Some((state, disks)) = lock_source(transaction, tenant, new.source_id).await? else {
        return refused(CreateRefusal::SourceNotFound);
    };
    if state != SourceState::Available {
        return refused(CreateRefusal::SourceState(state));
    }
    if count_jobs(transaction, tenant).await? >= i64::from(limit) {
        return refused(CreateRefusal::Quota { limit });
    }
    let disks = match target_disks::choose(&disks, new.disks) {
        Ok(disks) => disks,
        Err(invalid) => return refused(CreateRefusal::Disks(invalid)),
    };
    let network = match new
        .network
        .over(JobNetwork::default(), transaction, tenant, new.region_id)
        .await?
    {
        Ok(network) => network,
        Err(unfit) => return refused(CreateRefusal::Network(unfit)),
    };
    let now = now(transaction).await?;
    let valid_until = new.valid_until.unwrap_or(now + DEFAULT_VALIDITY);
    if !is_valid_until(valid_until, now) {
        return refused(CreateRefusal::ValidUntil);
    }
    if new
        .scheduled_start
        .is_some_and(|at| !is_schedulable(at, now, valid_until))
    {
        return refused(CreateRefusal::ScheduledStart);
    }
    insert(transaction, tenant, &id, new, &network, valid_until).await?;
    insert_disks(transaction, &id, new.source_id.as_str(), &disks).await?;
    let tagged = [id.to_string()];
    tag::insert(transaction, tenant, TaggedKind::Job, &tagged, new.tags).await?;
    set_timer(transaction, &id, "expire", valid_until).await?;
    if let Some(at) = new.scheduled_start {
        set_timer(transaction, &id, "start", at).await?;
    }
    Ok(CreateJob::Created(id))
}

/// Returns true if a validity that ends at `until` is allowed for a job created at `created`.
pub(super) fn is_valid_until(until: Timestamp, created: Timestamp) -> bool {
    // The tenant's clock, or a slow call, must not turn "exactly seven days" into a refusal.
    const TOLERANCE: Duration = Duration::from_secs(60);
    until + TOLERANCE >= created + SHORTEST_VALIDITY
        && until <= created + LONGEST_VALIDITY + TOLERANCE
}

/// Returns true if a start at `at` is allowed.
pub(super) fn is_schedulable(at: Timestamp, now: Timestamp, valid_until: Timestamp) -> bool {
    at > now && at <= now + SCHEDULE_AHEAD && at < valid_until
}

/// Locks the tenant and returns the number of jobs that it may have. The lock does not cover the key, so that rows that
/// refer to the tenant aren't blocked.
async fn lock_tenant(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
) -> Result<i32, StoreError> {
    Ok(sqlx::query_scalar!(
        "select max_jobs from tenant where id = $1 for no key update",
        tenant.as_str()
    )
    .fetch_one(&mut **transaction)
    .await?)
}

async fn lock_source(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    id: &SourceId,
) -> Result<Option<(SourceState, Vec<SourceDisk>)>, StoreError> {
    let Some(row) = sqlx::query!(
        r#"
        select deleting, last_seen_at > now() - make_interval(secs => $3) and failure_code is null as "healthy!",
            exists (select 1 from job where job.source_id = source.id
                and job.state not in ('finished', 'deleting')) as "has_job!"
        from source where tenant = $1 and id = $2 for no key update
        "#,
        tenant.as_str(),
        id.as_str(),
        offline_after_secs(),
    )
    .fetch_optional(&mut **transaction)
    .await?
    else {
        return Ok(None);
    };
    let disks = disks_of_source(transaction, id.as_str()).await?;
    let state = SourceState::derive(row.deleting, row.healthy, row.has_job);
    Ok(Some((state, disks)))
}

/// Returns the disks of a source as its agent last reported them, by index.
pub(crate) async fn disks_of_source(
    connection: &mut PgConnection,
    source_id: &str,
) -> Result<Vec<SourceDisk>, StoreError> {
    sqlx::query!(
        r#"select index, path, size_bytes, used_bytes, partitions as "partitions: Json<Vec<SourcePartition>>",
            layout as "layout: Json<DiskLayout>", identity as "identity: Json<DiskIdentity>", in_use
        from source_disk where source_id = $1 order by index"#,
        source_id
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(|row| {
        let facts = DiskFacts {
            partitions: row.partitions,
            layout: row.layout,
            identity: row.identity,
            in_use: row.in_use,
        };
        disk(row.index, row.path, row.size_bytes, row.used_bytes, facts)
    })
    .collect()
}

/// Counts the existing jobs, in every state (SMC API §5.6).
async fn count_jobs(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"select count(*) as "count!" from job where tenant = $1"#,
        tenant.as_str()
    )
    .fetch_one(&mut **transaction)
    .await?)
}

pub(super) async fn now(transaction: &mut Transaction<'_>) -> Result<Timestamp, StoreError> {
    Ok(sqlx::query_scalar!(r#"select now() as "now!""#)
        .fetch_one(&mut **transaction)
        .await?
        .into())
}

async fn insert(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    id: &JobId,
    new: &NewJob<'_>,
    network: &JobNetwork,
    valid_until: Timestamp,
) -> Result<(), StoreError> {
    let name = new
        .name
        .map_or_else(|| format!("Job_{id}"), ToString::to_string);
    let image_name = new
        .image_name
        .map_or_else(|| format!("Image_{id}"), ToString::to_string);
    sqlx::query!(
        "insert into job (id, tenant, source_id, region_id, name, description, image_name, replication_parameters,
             scheduled_start_at, valid_until, frequency_hours, images_to_keep, net_mode, vswitch_id, vpc_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        id.as_str(),
        tenant.as_str(),
        new.source_id.as_str(),
        new.region_id,
        name,
        new.description,
        image_name,
        new.replication_parameters,
        new.scheduled_start.map(Timestamp::as_datetime),
        valid_until.as_datetime(),
        new.increments.map(|increments| increments.frequency_hours),
        new.increments.map(|increments| increments.images_to_keep),
        network.net_mode,
        network.vswitch_id,
        network.vpc_id,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Writes the sizes of the image's disks, with the present facts about the source's disks. A run copies exactly these
/// disks, or fails.
pub(super) async fn insert_disks(
    transaction: &mut Transaction<'_>,
    id: &JobId,
    source_id: &str,
    disks: &[TargetDisk],
) -> Result<(), StoreError> {
    let indexes: Vec<i16> = disks
        .iter()
        .map(|disk| i16::try_from(disk.index.0).unwrap_or(i16::MAX))
        .collect();
    let sizes: Vec<i32> = disks
        .iter()
        .map(|disk| i32::try_from(disk.size_gib).unwrap_or(i32::MAX))
        .collect();
    sqlx::query!(
        "insert into job_disk (job_id, index, size_gib, path, source_bytes, identity)
         select $1, disk.index, disk.size_gib, source_disk.path, source_disk.size_bytes, source_disk.identity
         from unnest($3::smallint[], $4::integer[]) as disk (index, size_gib)
             join source_disk on source_disk.source_id = $2 and source_disk.index = disk.index
         on conflict (job_id, index) do update set
             size_gib = excluded.size_gib, path = excluded.path, source_bytes = excluded.source_bytes, identity = excluded.identity",
        id.as_str(),
        source_id,
        &indexes,
        &sizes,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Sets one of a job's timers and notifies the scheduler, which may have to wake earlier.
pub(super) async fn set_timer(
    transaction: &mut Transaction<'_>,
    id: &JobId,
    kind: &str,
    due_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into timer (job_id, kind, due_at) values ($1, $2, $3)
         on conflict (job_id, kind) do update set due_at = excluded.due_at",
        id.as_str(),
        kind,
        due_at.as_datetime(),
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!("select pg_notify($1, '')", TIMER_CHANNEL)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_and_schedule_are_bounded_on_both_sides() {
        let now = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        let hour = Duration::from_secs(3600);
        for (until, wanted) in [
            (now + SHORTEST_VALIDITY, true),
            (now + SHORTEST_VALIDITY - hour, false),
            (now + LONGEST_VALIDITY, true),
            (now + LONGEST_VALIDITY + hour, false),
        ] {
            assert_eq!(is_valid_until(until, now), wanted, "{until}");
        }
        let valid_until = now + SHORTEST_VALIDITY;
        for (at, wanted) in [
            (now, false),
            (now + hour, true),
            (valid_until, false),
            (now + SCHEDULE_AHEAD + hour, false),
        ] {
            assert_eq!(is_schedulable(at, now, valid_until), wanted, "{at}");
        }
    }
}
