//! Figures for the dashboard, read together.

use crate::{Store, StoreError};

/// Numbers of jobs, messages and agents, and the age of the oldest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Jobs by state.
    pub jobs: Vec<(String, i64)>,
    /// Started jobs of tenants without a free slot, and the age of the oldest in seconds.
    pub waiting_for_slot: (i64, f64),
    /// Other jobs without a worker, and the age of the oldest in seconds.
    pub waiting_for_worker: (i64, f64),
    /// Jobs that a worker drives.
    pub leased: i64,
    /// Messages not yet published, and the age of the oldest in seconds.
    pub outbox: (i64, f64),
    /// Sources whose agent reported lately, and the others.
    pub agents: (i64, i64),
}

impl Store {
    /// Reads all figures.
    ///
    /// # Errors
    /// The database fails.
    pub async fn figures(&self) -> Result<Figures, StoreError> {
        let jobs = sqlx::query!(r#"select state, count(*) as "count!" from job group by state"#)
            .fetch_all(&self.pool)
            .await?;
        let row = sqlx::query!(
            r#"
            with held as (
                select tenant, count(*) as slots from job where admitted_at is not null group by tenant
            ), queued as (
                select coalesce(admitted_at, queued_at) as since,
                    admitted_at is null and coalesce(held.slots, 0) >= tenant.max_running as is_at_limit,
                    exists (select 1 from job_lease where job_lease.job_id = job.id) as is_leased
                from job join tenant on tenant.id = job.tenant left join held on held.tenant = job.tenant
                where state in ('preparing', 'syncing', 'processing', 'cleaning')
            )
            select
                count(*) filter (where is_at_limit) as "slot!",
                coalesce(extract(epoch from now() - min(since) filter (where is_at_limit)), 0)::float8 as "slot_secs!",
                count(*) filter (where not is_at_limit and not is_leased) as "worker!",
                coalesce(extract(epoch from now() - min(since) filter (where not is_at_limit and not is_leased)), 0)::float8 as "worker_secs!",
                count(*) filter (where is_leased) as "leased!",
                (select count(*) from outbox) as "outbox!",
                coalesce((select extract(epoch from now() - min(created_at)) from outbox), 0)::float8 as "outbox_secs!",
                (select count(*) from source where last_seen_at > now() - make_interval(secs => $1)) as "online!",
                (select count(*) from source where last_seen_at <= now() - make_interval(secs => $1)) as "offline!"
            from queued
            "#,
            domain::source::OFFLINE_AFTER.as_secs_f64(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Figures {
            jobs: jobs.into_iter().map(|row| (row.state, row.count)).collect(),
            waiting_for_slot: (row.slot, row.slot_secs),
            waiting_for_worker: (row.worker, row.worker_secs),
            leased: row.leased,
            outbox: (row.outbox, row.outbox_secs),
            agents: (row.online, row.offline),
        })
    }
}
