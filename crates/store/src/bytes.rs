//! Bytes that a tenant's copies and images take in the stores, and the most that they may take.

use std::fmt;

use domain::{JobId, TenantId};

use crate::row::unsigned;
use crate::{Store, StoreError};

/// Bytes that a tenant has stored, and its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesHeld {
    /// Bytes that its copies and images take now.
    pub held: u64,
    /// The most that they may take.
    pub max: u64,
}

impl BytesHeld {
    /// Returns true if `more` bytes do not fit.
    pub fn is_exceeded_by(self, more: u64) -> bool {
        self.held.saturating_add(more) > self.max
    }

    /// Reads the two columns; `None` without a bound.
    pub(crate) fn read(held: Option<i64>, max: Option<i64>) -> Result<Option<Self>, StoreError> {
        let (Some(held), Some(max)) = (held, max) else {
            return Ok(None);
        };
        Ok(Some(Self {
            held: unsigned("bytes_of_tenant", held)?,
            max: unsigned("tenant.max_bytes", max)?,
        }))
    }
}

/// A job that does not fit into what its tenant may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuota {
    /// The tenant's bytes and quota.
    pub bytes: BytesHeld,
    /// Bytes that the job's next run stores in addition.
    pub needed: u64,
}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BytesHeld { held, max } = self.bytes;
        write!(f, "The copies and images of this account take {held} bytes")?;
        if self.needed > 0 {
            write!(f, ", and this job needs up to {} more", self.needed)?;
        }
        write!(
            f,
            "; {max} are allowed. Delete images and jobs that are not needed any more, or ask the operator for more, then start the job again."
        )
    }
}

impl Store {
    /// Bytes that a tenant's copies and images take in the stores.
    ///
    /// # Errors
    /// The database fails.
    pub async fn bytes_held(&self, tenant: &TenantId) -> Result<u64, StoreError> {
        let held = sqlx::query_scalar!(r#"select bytes_of_tenant($1) as "held!""#, tenant.as_str())
            .fetch_one(&self.pool)
            .await?;
        unsigned("bytes_of_tenant", held)
    }

    /// Returns why a run of the job would store more than its tenant may.
    ///
    /// # Errors
    /// The database fails.
    pub async fn over_quota(&self, job_id: &JobId) -> Result<Option<OverQuota>, StoreError> {
        over_quota(&mut *self.pool.acquire().await?, job_id).await
    }
}

/// A run stores what its disks use twice, as a raw disk and as qcow2; what was copied before counts already. Where use
/// is not known, it counts as nothing, and the run ends when it stores too much.
pub(crate) async fn over_quota(
    connection: &mut sqlx::PgConnection,
    job_id: &JobId,
) -> Result<Option<OverQuota>, StoreError> {
    let row = sqlx::query!(
        r#"
        select bytes_of_tenant(tenant.id) as "held!", tenant.max_bytes as "max!",
            greatest(0, 2 * coalesce((
                select sum(source_disk.used_bytes) from job_disk
                join source_disk on source_disk.source_id = job.source_id and source_disk.index = job_disk.index
                where job_disk.job_id = job.id), 0)
            - coalesce((select bytes_stored from instance where instance.job_id = job.id), 0))::bigint as "needed!"
        from job join tenant on tenant.id = job.tenant
        where job.id = $1 and tenant.max_bytes is not null
        "#,
        job_id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let bytes = BytesHeld {
        held: unsigned("bytes_of_tenant", row.held)?,
        max: unsigned("tenant.max_bytes", row.max)?,
    };
    let needed = unsigned("needed", row.needed)?;
    Ok(bytes
        .is_exceeded_by(needed)
        .then_some(OverQuota { bytes, needed }))
}
