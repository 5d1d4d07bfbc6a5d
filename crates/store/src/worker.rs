//! The live workers, and the number of runs that each drives at once: the places that admission can give.

use std::time::Duration;

use crate::{Store, StoreError};

/// Time that the row of a dead worker is kept, for people.
const FORGOTTEN_AFTER_SECS: f64 = 86_400.0;

impl Store {
    /// Records that the worker lives for `ttl` from now, with this number of places.
    ///
    /// # Errors
    /// The database fails; the worker's places run out by themselves.
    pub async fn worker_lives(
        &self,
        worker: &str,
        slots: u32,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let is_new = sqlx::query_scalar!(
            r#"
            insert into worker (id, slots, expires_at) values ($1, $2, now() + make_interval(secs => $3))
            on conflict (id) do update set slots = excluded.slots, expires_at = excluded.expires_at
            returning xmax = 0 as "is_new!"
            "#,
            worker,
            i32::try_from(slots).unwrap_or(i32::MAX),
            ttl.as_secs_f64(),
        )
        .fetch_one(&mut *transaction)
        .await?;
        if is_new {
            sqlx::query!(
                "delete from worker where expires_at < now() - make_interval(secs => $1)",
                FORGOTTEN_AFTER_SECS
            )
            .execute(&mut *transaction)
            .await?;
            sqlx::query!("select pg_notify($1, '')", crate::job::QUEUE_CHANNEL)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Removes the worker's places, so that it receives no more runs.
    ///
    /// # Errors
    /// The database fails; the worker's places run out by themselves.
    pub async fn worker_leaves(&self, worker: &str) -> Result<(), StoreError> {
        sqlx::query!("delete from worker where id = $1", worker)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
