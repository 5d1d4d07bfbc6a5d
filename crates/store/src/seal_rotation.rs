//! Another seal key: what older keys have sealed is sealed anew.
//!
//! A row is replaced only if it is still what was read, so that it may run while others write, and again after it was cut off.

use crate::{Store, StoreError, deployment_secret, instance, key};

/// Rows that are read at once.
const PAGE: i64 = 500;

/// What became of the sealed secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed with the first key now, and with an older one before.
    pub anew: u64,
    /// Sealed with the first key before.
    pub current: u64,
    /// Opened by none of the keys.
    pub lost: u64,
}

/// A sealed secret, and its row's id.
struct Sealed {
    id: String,
    sealed: Vec<u8>,
}

impl Store {
    /// Seals with the first seal key whatever an older one has sealed.
    ///
    /// # Errors
    /// The database fails. What was sealed anew stays so.
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

    /// The secret sealed anew, if that is needed and can be done; else it is counted.
    fn anew(&self, purpose: &str, row: &Sealed, done: &mut Resealed) -> Option<Vec<u8>> {
        match self.seal.reseal(purpose, &row.sealed) {
            Ok(Some(anew)) => return Some(anew),
            Ok(None) => done.current += 1,
            Err(_) => done.lost += 1,
        }
        None
    }
}
