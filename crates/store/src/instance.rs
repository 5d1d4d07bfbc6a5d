//! Intermediate instances: the row exists before the resource, and is removed after it.

use domain::{Epoch, InstanceId, JobId, Run, TenantId};

use crate::row::parse;
use crate::{Store, StoreError};

/// An instance, as its row describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Id of the instance.
    pub id: InstanceId,
    /// The tenant.
    pub tenant: TenantId,
    /// The job.
    pub job_id: JobId,
    /// The job's run.
    pub run: Run,
    /// The epoch that last took the instance over.
    pub epoch: Epoch,
    /// The provider that creates the instance.
    pub provider: String,
    /// Host of the instance, for providers that are bound to a machine.
    pub host: String,
    /// Certificate and key of the run's authority, as PEM.
    pub authority: Authority,
}

/// Certificate and key of a run's authority. The key does not print.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Authority {
    /// PEM of the certificate.
    pub certificate_pem: String,
    /// PEM of the key.
    pub key_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

pub(crate) fn purpose(id: &str) -> String {
    format!("instance/{id}")
}

impl Store {
    /// Returns the job's instance for the holder of `candidate.epoch`. It is the candidate if the job had none, else
    /// the existing instance, taken over. `None` if the epoch is over.
    ///
    /// # Errors
    /// The database fails, or the authority can't be opened with this seal key.
    pub async fn take_instance(
        &self,
        candidate: &Instance,
    ) -> Result<Option<Instance>, StoreError> {
        let authority =
            serde_json::to_vec(&candidate.authority).expect("two strings have a JSON form");
        let sealed = self.seal.seal(&purpose(candidate.id.as_str()), &authority);
        let row = sqlx::query!(
            r#"
            insert into instance (id, tenant, job_id, run, epoch, provider, host, authority_sealed)
            select $1, $2, $3, $4, $5, $6, $7, $8
            where exists (select 1 from job where id = $3 and epoch = $5)
            on conflict (job_id) do update set run = excluded.run, epoch = excluded.epoch
                where instance.epoch <= excluded.epoch
            returning id, tenant, run, epoch, provider, host, authority_sealed
            "#,
            candidate.id.as_str(),
            candidate.tenant.as_str(),
            candidate.job_id.as_str(),
            candidate.run.0,
            candidate.epoch.0,
            candidate.provider,
            candidate.host,
            sealed,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let opened = self.seal.open(&purpose(&row.id), &row.authority_sealed)?;
            Ok(Instance {
                id: parse("instance.id", &row.id)?,
                tenant: parse("instance.tenant", &row.tenant)?,
                job_id: candidate.job_id.clone(),
                run: Run(row.run),
                epoch: Epoch(row.epoch),
                provider: row.provider,
                host: row.host,
                authority: serde_json::from_slice(&opened).map_err(|_| StoreError::Unseal)?,
            })
        })
        .transpose()
    }

    /// Returns the instance of a job.
    ///
    /// # Errors
    /// The database fails.
    pub async fn instance_of(&self, job_id: &JobId) -> Result<Option<InstanceId>, StoreError> {
        let id = sqlx::query_scalar!("select id from instance where job_id = $1", job_id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        id.map(|id| parse("instance.id", &id)).transpose()
    }

    /// Removes the row of an instance that is gone, unless a later epoch has taken it over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_instance(&self, id: &InstanceId, epoch: Epoch) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from instance where id = $1 and epoch <= $2",
            id.as_str(),
            epoch.0
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns those of `ids` without an owner: no row names them, or the row's job is gone.
    ///
    /// # Errors
    /// The database fails.
    pub async fn orphaned_instances(
        &self,
        ids: &[InstanceId],
    ) -> Result<Vec<InstanceId>, StoreError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let orphans = sqlx::query_scalar!(
            r#"
            select found.id as "id!" from unnest($1::text[]) as found (id)
            where not exists (
                select 1 from instance join job on job.id = instance.job_id where instance.id = found.id)
            "#,
            &ids,
        )
        .fetch_all(&self.pool)
        .await?;
        orphans.iter().map(|id| parse("instance.id", id)).collect()
    }

    /// Removes the rows of this host's instances whose job is gone, except those that still exist.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_instances(
        &self,
        host: &str,
        existing: &[InstanceId],
    ) -> Result<u64, StoreError> {
        let existing: Vec<String> = existing.iter().map(ToString::to_string).collect();
        let removed = sqlx::query!(
            "delete from instance where host = $1 and not id = any($2)
             and not exists (select 1 from job where job.id = instance.job_id)",
            host,
            &existing,
        )
        .execute(&self.pool)
        .await?;
        Ok(removed.rows_affected())
    }
}
