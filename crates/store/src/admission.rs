//! Admission: which started job gets a slot next.
//!
//! A slot is a running job with `admitted_at` set (`docs/decisions/0001-slots-are-counted.md`). It is one of its tenant's, of which a quota says how
//! many there are, and a place of a worker, of which there are as many as live workers have. Places are shared max-min fairly: the next free one goes
//! to the waiting tenant that holds the fewest, so no tenant gets one more while another waits that holds fewer. Within a tenant priority decides,
//! then age. Where nothing becomes free, a run of the tenant that holds the most is asked to give its place up ([`Store::ask_for_place`]).

use std::time::Duration;

use domain::message::{Command, Message, TraceHeaders};
use domain::{JobId, Run};
use sqlx::types::Json;

use crate::row::parse;
use crate::{Store, StoreError, outbox};

/// A job that was given a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The job.
    pub job_id: JobId,
    /// Its run.
    pub run: Run,
}

/// Taken by whoever admits, until its transaction ends.
const ADMISSION_LOCK: i64 = 0x7768_6572_7279;

impl Store {
    /// Gives slots to one queued job of each tenant that holds the fewest, as long as workers have free places, and to no more than `window` jobs
    /// in all that wait for a worker. Without a live worker the window alone bounds what waits for the first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn admit_round(&self, window: i64) -> Result<Vec<Admitted>, StoreError> {
        let tenants = sqlx::query_scalar!(
            r#"
            select tenant as "tenant!" from (
                select queued.tenant, queued.since, rank() over (order by slots) as rank from (
                    select tenant, min(queued_at) as since,
                        (select count(*) from job as held where held.tenant = job.tenant and held.admitted_at is not null) as slots
                    from job where state = 'preparing' and admitted_at is null group by tenant) as queued
                join tenant on tenant.id = queued.tenant and queued.slots < tenant.max_running) as ranked
            where rank = 1 order by since
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut admitted = Vec::new();
        for tenant in tenants {
            match self.admit_one(&tenant, window).await? {
                Turn::Admitted(job) => admitted.push(job),
                Turn::NoSlot => {}
                Turn::Full => break,
            }
        }
        Ok(admitted)
    }

    /// Asks the run that has had its worker's place longest, of the tenant that holds the most, to give it up: no place is free, and a tenant waits
    /// that would still hold no more than the other when it had it. Runs in the middle of their copy are asked only, once they had their
    /// place for `at_least`, and one at a time. Answers with the job that was asked.
    ///
    /// # Errors
    /// The database fails.
    pub async fn ask_for_place(&self, at_least: Duration) -> Result<Option<JobId>, StoreError> {
        let asked = sqlx::query_scalar!(
            r#"
            with held as (
                select tenant, count(*) as slots from job where admitted_at is not null group by tenant
            ), waiting as (
                select min(coalesce(held.slots, 0)) as slots
                from (select distinct tenant from job where state = 'preparing' and admitted_at is null) as queued
                join tenant on tenant.id = queued.tenant left join held on held.tenant = queued.tenant
                where coalesce(held.slots, 0) < tenant.max_running
            ), most as (
                select tenant from held
                where slots > (select slots from waiting) + 1
                  and (select sum(slots) from held) >= (select sum(slots) from worker where expires_at > now())
                  and not exists (
                      select 1 from job_lease join job on job.id = job_lease.job_id
                      where job_lease.yields and job_lease.expires_at > now() and job.state = 'syncing')
                order by slots desc limit 1
            ), longest as (
                select job.id, run.since from job cross join lateral (
                    select since, expires_at from job_lease where job_lease.job_id = job.id limit 1) as run
                where job.tenant = (select tenant from most) and job.admitted_at is not null
                  and job.state = 'syncing' and job.intent = 'run' and run.expires_at > now()
                  and run.since <= now() - make_interval(secs => $1)
                order by run.since limit 1
            )
            update job_lease set yields = true where job_id = (select id from longest)
            returning job_id
            "#,
            at_least.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        asked.map(|id| parse("job.id", &id)).transpose()
    }

    async fn admit_one(&self, tenant: &str, window: i64) -> Result<Turn, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Free places are counted over all tenants: one admission at a time.
        sqlx::query!("select pg_advisory_xact_lock($1)", ADMISSION_LOCK)
            .execute(&mut *transaction)
            .await?;
        let limit = sqlx::query_scalar!(
            "select max_running from tenant where id = $1 for no key update",
            tenant
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(limit) = limit else {
            return Ok(Turn::NoSlot);
        };
        let counts = sqlx::query!(
            r#"
            select
                (select count(*) from job where tenant = $1 and admitted_at is not null) as "slots!",
                (select count(*) from job where state = 'preparing' and admitted_at is not null
                    and not exists (select 1 from job_lease where job_lease.job_id = job.id)) as "unleased!",
                (select count(*) from job where admitted_at is not null) as "taken!",
                (select sum(slots) from worker where expires_at > now()) as places
            "#,
            tenant
        )
        .fetch_one(&mut *transaction)
        .await?;
        if counts.unleased >= window || counts.places.is_some_and(|places| counts.taken >= places) {
            return Ok(Turn::Full);
        }
        if counts.slots >= i64::from(limit) {
            return Ok(Turn::NoSlot);
        }
        let row = sqlx::query!(
            r#"
            update job set admitted_at = now()
            where id = (
                select id from job where tenant = $1 and state = 'preparing' and admitted_at is null
                order by priority desc, queued_at limit 1 for update)
              and state = 'preparing' and admitted_at is null
            returning id, run, epoch, start_headers as "start_headers: Json<TraceHeaders>"
            "#,
            tenant
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            return Ok(Turn::NoSlot);
        };
        sqlx::query!(
            "insert into job_event (job_id, tenant, event, from_state, to_state, run, epoch, actor, detail)
             values ($1, $2, 'start', 'preparing', 'preparing', $3, $4, 'scheduler', 'given a slot')",
            row.id,
            tenant,
            row.run,
            row.epoch,
        )
        .execute(&mut *transaction)
        .await?;
        let admitted = Admitted {
            job_id: parse("job.id", &row.id)?,
            run: Run(row.run),
        };
        let command = Command::StartRun {
            job_id: admitted.job_id.clone(),
            run: admitted.run,
        };
        outbox::append(
            &mut transaction,
            &Message::Command(command),
            &row.start_headers,
        )
        .await?;
        transaction.commit().await?;
        Ok(Turn::Admitted(admitted))
    }
}

enum Turn {
    Admitted(Admitted),
    NoSlot,
    /// No place is free, or enough jobs wait for a worker.
    Full,
}
