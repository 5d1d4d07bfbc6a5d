//! Rows of a long-used deployment, for load tests: so many that a statement without its index is noticed.

use domain::TenantId;

use crate::{Store, StoreError};

impl Store {
    /// Inserts `count` more sources for the tenant, each with a disk and one job. Of ten jobs, seven are finished, one
    /// is ready, one is stopped, and one waits for its next run. Their times are one second apart, back from now. For a
    /// day the sources count as online. Quotas are ignored here.
    ///
    /// # Errors
    /// The database fails.
    pub async fn fill(
        &self,
        tenant: &TenantId,
        region_id: &str,
        count: u32,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        // All rows in one statement: a hundred thousand rows take seconds, more than the time limit of a call's
        // statements.
        sqlx::query!("set local statement_timeout = 0")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            r#"
            with numbered as (
                select n, substr(md5($1 || '/' || n || '/' || random()), 1, 20) as text, now() - make_interval(secs => n) as at
                from generate_series(1, $3::bigint) as n
            ), sources as (
                insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform, system_info, created_at,
                    last_seen_at)
                select 's-' || text, $1, 'fill-' || text, 'A row of a load test', convert_to(text, 'UTF8'), '0.1.0', 'x86_64', 'Debian',
                    '{"cores":"2","hostname":"fill","memory":"2048"}', at, now() + interval '1 day'
                from numbered
            ), source_disks as (
                insert into source_disk (source_id, index, path, size_bytes)
                select 's-' || text, 0, '/dev/vda', 30::bigint << 30 from numbered
            ), jobs as (
                insert into job (id, tenant, source_id, region_id, name, image_name, state, run, bytes_durable, bytes_total, created_at,
                    started_at, ended_at, valid_until, frequency_hours, images_to_keep)
                select 'j-' || text, $1, 's-' || text, $2, 'fill-' || text, 'fill-' || text,
                    case n % 10 when 0 then 'ready' when 1 then 'stopped' when 2 then 'waiting' else 'finished' end,
                    case n % 10 when 0 then 0 else 1 end, 30::bigint << 30, 30::bigint << 30, at,
                    case n % 10 when 0 then null else at end, case n % 10 when 0 then null else at end, now() + interval '30 days',
                    case n % 10 when 2 then 24 end, case n % 10 when 2 then 1 end
                from numbered
            ), job_disks as (
                insert into job_disk (job_id, index, size_gib) select 'j-' || text, 0, 40 from numbered
            )
            insert into job_event (job_id, tenant, at, event, from_state, to_state, run, epoch, actor)
            select 'j-' || text, $1, at, event, from_state, to_state, 1, 1, 'fill'
            from numbered, (values ('start', 'ready', 'preparing'), ('prepared', 'preparing', 'syncing')) as moved (event, from_state, to_state)
            where n % 10 > 0
            "#,
            tenant.as_str(),
            region_id,
            i64::from(count),
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        // Postgres would do the same by itself a minute later.
        sqlx::query!("vacuum analyze source, source_disk, job, job_disk, job_event")
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
