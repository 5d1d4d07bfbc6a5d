//! Admission: which started job gets a slot next.
//!
//! A slot is a running job with `admitted_at` set (`docs/decisions/0001-slots-are-counted.md`). One call admits at most one job of each tenant, so tenants take
//! turns; within a tenant priority decides, then age. The tenant's row is the lock under which its slots are counted.

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

impl Store {
    /// Gives slots to at most one queued job of each tenant, and no more than `window` jobs in all that wait for a worker, so that a
    /// tenant with many jobs can't fill the work queue in front of the others. Tenants with the fewest slots come first, so that places
    /// that become free one at a time do not all go to the tenant with the oldest jobs.
    ///
    /// # Errors
    /// The database fails.
    pub async fn admit_round(&self, window: i64) -> Result<Vec<Admitted>, StoreError> {
        let tenants = sqlx::query_scalar!(
            r#"
            select queued.tenant as "tenant!" from (
                select tenant, min(queued_at) as since from job where state = 'preparing' and admitted_at is null
                group by tenant) as queued
            order by (select count(*) from job where job.tenant = queued.tenant and admitted_at is not null), queued.since
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut admitted = Vec::new();
        for tenant in tenants {
            match self.admit_one(&tenant, window).await? {
                Turn::Admitted(job) => admitted.push(job),
                Turn::NoSlot => {}
                Turn::WindowFull => break,
            }
        }
        Ok(admitted)
    }

    async fn admit_one(&self, tenant: &str, window: i64) -> Result<Turn, StoreError> {
        let mut transaction = self.pool.begin().await?;
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
                    and not exists (select 1 from job_lease where job_lease.job_id = job.id)) as "unleased!"
            "#,
            tenant
        )
        .fetch_one(&mut *transaction)
        .await?;
        if counts.unleased >= window {
            return Ok(Turn::WindowFull);
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
    WindowFull,
}
