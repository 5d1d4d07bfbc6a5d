//! Admission: the choice of the next started job that gets a slot.
//!
//! A slot is a running job with `admitted_at` set (`docs/decisions/0001-slots-are-counted.md`). It counts against two
//! limits. A quota limits the slots of the tenant. The live workers limit the places for all tenants. Places are shared
//! max-min fairly: the next free place goes to the waiting tenant that holds the fewest. So no tenant gets another
//! place while a tenant waits that holds fewer. Within a tenant, priority decides first, then age. If no place becomes
//! free, a run of the tenant that holds the most is asked to give up its place ([`Store::ask_for_place`]).

use std::time::Duration;

use domain::message::{Command, Message, TraceHeaders};
use domain::{JobId, Run};
use sqlx::types::Json;

use crate::row::parse;
use crate::{Store, StoreError, outbox};

/// A job that received a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The job.
    pub job_id: JobId,
    /// The job's run.
    pub run: Run,
}

/// Lock that an admission holds until its transaction ends.
const ADMISSION_LOCK: i64 = 0x7768_6572_7279;

impl Store {
    /// Gives a slot to one queued job of each tenant that holds the fewest, while workers have free places. At most
    /// `window` admitted jobs wait for a worker at a time. Without a live worker, `window` alone bounds the jobs that
    /// wait for the first one.
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

    /// Asks a run to give up its worker's place, and returns the job that was asked.
    ///
    /// A run is asked if no place is free and a tenant waits that would hold no more than the asked tenant after the
    /// exchange. The run belongs to the tenant that holds the most and has had its place longest. Only runs in the
    /// middle of their copy are asked, after they have had their place for `at_least`. One run is asked at a time.
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
        // Free places are counted over all tenants, so only one admission runs at a time.
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
