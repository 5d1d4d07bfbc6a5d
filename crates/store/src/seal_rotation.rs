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

/// A column of sealed secrets. There are no others: `store/tests/seal.rs` holds that against the schema.
#[derive(Debug, Clone, Copy)]
enum Column {
    AccessKey,
    DeploymentSecret,
    Instance,
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
        for column in [
            Column::DeploymentSecret,
            Column::AccessKey,
            Column::Instance,
        ] {
            self.reseal_column(column, &mut done).await?;
        }
        Ok(done)
    }

    async fn reseal_column(&self, column: Column, done: &mut Resealed) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let found = self.sealed_behind(column, &after).await?;
            let Some(last) = found.last() else {
                return Ok(());
            };
            after.clone_from(&last.id);
            for row in found {
                match self.seal.reseal(&column.purpose(&row.id), &row.sealed) {
                    Ok(Some(anew)) => done.anew += self.replace(column, &row, &anew).await?,
                    Ok(None) => done.current += 1,
                    Err(_) => done.lost += 1,
                }
            }
        }
    }

    /// The next rows in the order of their ids.
    async fn sealed_behind(&self, column: Column, after: &str) -> Result<Vec<Sealed>, StoreError> {
        let found = match column {
            Column::AccessKey => {
                sqlx::query_as!(
                    Sealed,
                    "select id, secret_sealed as sealed from access_key where id > $1 order by id limit $2",
                    after,
                    PAGE
                )
                .fetch_all(&self.pool)
                .await
            }
            Column::DeploymentSecret => {
                sqlx::query_as!(
                    Sealed,
                    "select name as id, sealed from deployment_secret where name > $1 order by name limit $2",
                    after,
                    PAGE
                )
                .fetch_all(&self.pool)
                .await
            }
            Column::Instance => {
                sqlx::query_as!(
                    Sealed,
                    "select id, authority_sealed as sealed from instance where id > $1 order by id limit $2",
                    after,
                    PAGE
                )
                .fetch_all(&self.pool)
                .await
            }
        };
        Ok(found?)
    }

    /// Replaces what is still as it was read, and returns how many rows that are.
    async fn replace(&self, column: Column, row: &Sealed, anew: &[u8]) -> Result<u64, StoreError> {
        let (id, sealed) = (&row.id, &row.sealed);
        let statement = match column {
            Column::AccessKey => sqlx::query!(
                "update access_key set secret_sealed = $2 where id = $1 and secret_sealed = $3",
                id,
                anew,
                sealed
            ),
            Column::DeploymentSecret => sqlx::query!(
                "update deployment_secret set sealed = $2 where name = $1 and sealed = $3",
                id,
                anew,
                sealed
            ),
            Column::Instance => sqlx::query!(
                "update instance set authority_sealed = $2 where id = $1 and authority_sealed = $3",
                id,
                anew,
                sealed
            ),
        };
        Ok(statement.execute(&self.pool).await?.rows_affected())
    }
}

impl Column {
    fn purpose(self, id: &str) -> String {
        match self {
            Self::AccessKey => key::purpose(id),
            Self::DeploymentSecret => deployment_secret::purpose(id),
            Self::Instance => instance::purpose(id),
        }
    }
}
