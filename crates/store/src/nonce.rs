//! Nonces of signed calls: each is good for one call.

use std::time::Duration;

use crate::{Store, StoreError};

impl Store {
    /// Uses up a nonce of a verified call. False if it was used before: of any number of copies sent at once to any number of
    /// gateways, the primary key lets one pass.
    pub async fn use_nonce(&self, access_key_id: &str, nonce: &str) -> Result<bool, StoreError> {
        let inserted = sqlx::query!(
            "insert into signature_nonce (access_key, nonce) values ($1, $2) on conflict do nothing",
            access_key_id,
            nonce
        )
        .execute(&self.pool)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Forgets at most 10,000 nonces that are older than `age`, and says how many.
    pub async fn forget_nonces(&self, age: Duration) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from signature_nonce where (access_key, nonce) in (
                select access_key, nonce from signature_nonce
                where seen_at < now() - make_interval(secs => $1)
                order by seen_at limit 10000 for update skip locked)",
            age.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
