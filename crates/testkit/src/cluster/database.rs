//! Reads and writes of a cluster's database that tests need and no API offers.

use anyhow::{Context as _, ensure};
use domain::TenantId;
use smc::model::StartReplicationJob;
use sqlx::{Connection as _, PgConnection};

use super::{Cluster, REGION, Tenant};

impl Cluster {
    /// Number of leases that a process holds, or has died with.
    pub async fn leases(&self) -> anyhow::Result<i64> {
        self.count("select count(*) from job_lease").await
    }

    /// Slots that running jobs hold.
    pub async fn slots(&self) -> anyhow::Result<i64> {
        self.count("select count(*) from job where admitted_at is not null")
            .await
    }

    /// Messages that were not published yet.
    pub async fn unpublished(&self) -> anyhow::Result<i64> {
        self.count("select count(*) from outbox").await
    }

    async fn count(&self, statement: &'static str) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(&self.postgres.url()).await?;
        Ok(sqlx::query_scalar(statement)
            .fetch_one(&mut connection)
            .await?)
    }

    /// Started jobs of the tenant that no worker has yet.
    pub async fn jobs_without_worker(&self, tenant: &TenantId) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(&self.postgres.url()).await?;
        Ok(sqlx::query_scalar(
            "select count(*) from job left join job_lease on job_lease.job_id = job.id
             where tenant = $1 and state = 'preparing' and job_lease.job_id is null",
        )
        .bind(tenant.as_str())
        .fetch_one(&mut connection)
        .await?)
    }

    /// Starts this many jobs whose sources count as online, but whose agents never connect. Each job holds a worker's
    /// slot until the worker stops waiting.
    pub async fn start_flood(&self, tenant: &Tenant, jobs: u32) -> anyhow::Result<()> {
        // Of ten jobs that a filled database has, two can be started.
        self.store.fill(&tenant.id, REGION, jobs * 5).await?;
        let mut connection = PgConnection::connect(&self.postgres.url()).await?;
        // Last seen late enough to be online for as long as a test runs, each with a key (Ed25519, DER) that
        // certificates can be made for.
        sqlx::query(
            "update source set last_seen_at = now() + interval '1 hour',
                 public_key = decode('302a300506032b6570032100', 'hex') || sha256(id::bytea)
             where tenant = $1",
        )
        .bind(tenant.id.as_str())
        .execute(&mut connection)
        .await?;
        let startable: Vec<String> = sqlx::query_scalar(
            "select id from job where tenant = $1 and state in ('ready', 'stopped') order by id",
        )
        .bind(tenant.id.as_str())
        .fetch_all(&mut connection)
        .await?;
        ensure!(
            startable.len() == jobs as usize,
            "{} jobs can be started, {jobs} were wanted",
            startable.len()
        );
        for job in startable {
            tenant
                .client
                .call(&StartReplicationJob {
                    job_id: job.to_string(),
                })
                .await
                .with_context(|| format!("start {job}"))?;
        }
        Ok(())
    }
}
