//! Nonces of signed calls: each is good for one call.
//!
//! They lie in a partition for each hour of the times in signed calls (`migrations/0050`). Two copies of a call have
//! the same time, so they meet in one partition, and of any number sent at once to any number of gateways its primary
//! key lets one pass. A nonce that its owner signs again with the time of another hour is taken, and rightly: that is
//! another call with another signature, which only he can make.

use std::time::Duration;

use domain::Timestamp;

use crate::{Store, StoreError};

const HOUR_SECS: i64 = 3600;

/// Hours for which partitions are made ahead.
const AHEAD: i64 = 6;

/// SQLSTATE of a row that no partition takes.
const NO_PARTITION: &str = "23514";

impl Store {
    /// Uses up a nonce of a verified call that was signed at `signed_at`. False if it was used before.
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
                // Nobody has made it ahead: no gateway ran for hours.
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

    /// Makes the partitions of the next hours, drops those of hours that ended longer than `kept` ago, and says how
    /// many. Any number of gateways may do so at once.
    ///
    /// # Errors
    /// The database fails, or calls held the table for long: then it is to be tried again later.
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
