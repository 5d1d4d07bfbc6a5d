//! Nonces of signed calls: each is valid for one call.
//!
//! Nonces are stored in a partition for each hour of the times in signed calls (`migrations/0050`). Copies of a call
//! have the same time, so they meet in one partition. Any number of copies may reach any number of gateways at once;
//! the partition's primary key admits one. A nonce that its owner signs again with the time of another hour is
//! accepted. That is correct: it is another call with another signature, and only the owner can make it.

use std::time::Duration;

use domain::Timestamp;

use crate::{Store, StoreError};

const HOUR_SECS: i64 = 3600;

/// Hours for which partitions are created in advance.
const AHEAD: i64 = 6;

/// SQLSTATE of a row without a partition.
const NO_PARTITION: &str = "23514";

impl Store {
    /// Uses up a nonce of a verified call that was signed at `signed_at`. False if the nonce was used before.
    ///
    /// # Errors
    /// The database fails.
    pub async fn use_nonce(
        &self,
        access_key_id: &str,
        nonce: &str,
        signed_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let hour = signed_at.unix_seconds().div_euclid(HOUR_SECS);
        match self.insert_nonce(hour, access_key_id, nonce).await {
            Err(error) if has_no_partition(&error) => {
                // The partition was not created in advance, because no gateway ran for hours.
                sqlx::query!("select make_nonce_partition($1)", hour)
                    .execute(&self.pool)
                    .await?;
                Ok(self.insert_nonce(hour, access_key_id, nonce).await?)
            }
            inserted => Ok(inserted?),
        }
    }

    async fn insert_nonce(
        &self,
        hour: i64,
        access_key_id: &str,
        nonce: &str,
    ) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query!(
            "insert into signature_nonce (hour, access_key, nonce) values ($1, $2, $3) on conflict do nothing",
            hour,
            access_key_id,
            nonce
        )
        .execute(&self.pool)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Creates the partitions of the next hours, drops those of hours that ended longer than `kept` ago, and returns
    /// the number dropped. Any number of gateways may do so at once.
    ///
    /// # Errors
    /// The database fails, or calls held the table for long. In the second case the caller should retry later.
    pub async fn keep_nonces(&self, kept: Duration) -> Result<i64, StoreError> {
        sqlx::query!(
            "select make_nonce_partition(extract(epoch from now())::bigint / 3600 + ahead)
             from generate_series(0::bigint, $1) as ahead",
            AHEAD
        )
        .execute(&self.pool)
        .await?;
        let dropped = sqlx::query_scalar!(
            r#"select drop_nonce_partitions(
                   (extract(epoch from now() - make_interval(secs => $1)))::bigint / 3600) as "dropped!""#,
            kept.as_secs_f64()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(dropped)
    }
}

fn has_no_partition(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(NO_PARTITION))
}
