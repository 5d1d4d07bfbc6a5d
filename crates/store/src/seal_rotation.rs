//! Rotation of the seal key: secrets that older keys have sealed are sealed again.
//!
//! A row is replaced only if it still holds the value that was read. So the rotation may run while others write, and
//! again after an interruption.

use crate::{Store, StoreError, deployment_secret, instance, key};

/// Rows that one statement reads.
const PAGE: i64 = 500;

/// Outcome of a rotation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Secrets that an older key had sealed, now sealed with the first key.
    pub anew: u64,
    /// Secrets that the first key had sealed before.
    pub current: u64,
    /// Secrets that none of the keys opens.
    pub lost: u64,
}

/// A sealed secret, and its row's id.
struct Sealed {
    id: String,
    sealed: Vec<u8>,
}

impl Store {
    /// Seals all secrets of older keys with the first seal key.
    ///
    /// # Errors
    /// The database fails. Secrets that were sealed again stay so.
    pub async fn reseal(&self) -> Result<Resealed, StoreError> {
        let mut done = Resealed::default();
        self.reseal_deployment_secrets(&mut done).await?;
        self.reseal_access_keys(&mut done).await?;
        self.reseal_instances(&mut done).await?;
        Ok(done)
    }

    async fn reseal_deployment_secrets(&self, done: &mut Resealed) -> Result<(), StoreError> {
        let found = sqlx::query_as!(
            Sealed,
            "select name as id, sealed from deployment_secret order by name"
        )
        .fetch_all(&self.pool)
        .await?;
        for row in found {
            let Some(anew) = self.anew(&deployment_secret::purpose(&row.id), &row, done) else {
                continue;
            };
            let written = sqlx::query!(
                "update deployment_secret set sealed = $2 where name = $1 and sealed = $3",
                row.id,
                anew,
                row.sealed
            )
            .execute(&self.pool)
            .await?;
            done.anew += written.rows_affected();
        }
        Ok(())
    }

    async fn reseal_access_keys(&self, done: &mut Resealed) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let found = sqlx::query_as!(
                Sealed,
                "select id, secret_sealed as sealed from access_key where id > $1 order by id limit $2",
                after,
                PAGE
            )
            .fetch_all(&self.pool)
            .await?;
            let Some(last) = found.last() else {
                return Ok(());
            };
            after.clone_from(&last.id);
            for row in found {
                let Some(anew) = self.anew(&key::purpose(&row.id), &row, done) else {
                    continue;
                };
                let written = sqlx::query!(
                    "update access_key set secret_sealed = $2 where id = $1 and secret_sealed = $3",
                    row.id,
                    anew,
                    row.sealed
                )
                .execute(&self.pool)
                .await?;
                done.anew += written.rows_affected();
            }
        }
    }

    async fn reseal_instances(&self, done: &mut Resealed) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let found = sqlx::query_as!(
                Sealed,
                "select id, authority_sealed as sealed from instance where id > $1 order by id limit $2",
                after,
                PAGE
            )
            .fetch_all(&self.pool)
            .await?;
            let Some(last) = found.last() else {
                return Ok(());
            };
            after.clone_from(&last.id);
            for row in found {
                let Some(anew) = self.anew(&instance::purpose(&row.id), &row, done) else {
                    continue;
                };
                let written = sqlx::query!(
                    "update instance set authority_sealed = $2 where id = $1 and authority_sealed = $3",
                    row.id,
                    anew,
                    row.sealed
                )
                .execute(&self.pool)
                .await?;
                done.anew += written.rows_affected();
            }
        }
    }

    /// Returns the secret sealed again, if that is necessary and possible. Otherwise the secret is counted.
    fn anew(&self, purpose: &str, row: &Sealed, done: &mut Resealed) -> Option<Vec<u8>> {
        match self.seal.reseal(purpose, &row.sealed) {
            Ok(Some(anew)) => return Some(anew),
            Ok(None) => done.current += 1,
            Err(_) => done.lost += 1,
        }
        None
    }
}
