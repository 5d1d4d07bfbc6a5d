//! Secrets of the deployment as a whole. Each is created once, by the first process that needs it, and never changes.

use crate::{Store, StoreError};

impl Store {
    /// Returns the secret of this name, if it exists.
    ///
    /// # Errors
    /// [`StoreError::Unseal`] if it was sealed with another key.
    pub async fn deployment_secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed =
            sqlx::query_scalar!("select sealed from deployment_secret where name = $1", name)
                .fetch_optional(&self.pool)
                .await?;
        sealed
            .map(|sealed| self.seal.open(&purpose(name), &sealed))
            .transpose()
    }

    /// Stores `candidate` under this name unless another process was first, and returns the stored secret.
    pub async fn keep_deployment_secret(
        &self,
        name: &str,
        candidate: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let kept = sqlx::query!(
            "insert into deployment_secret (name, sealed) values ($1, $2) on conflict (name) do nothing",
            name,
            self.seal.seal(&purpose(name), candidate),
        )
        .execute(&self.pool)
        .await?
        .rows_affected();
        if kept == 1 {
            return Ok(candidate.to_vec());
        }
        let theirs = self.deployment_secret(name).await?;
        theirs.ok_or(StoreError::Statement(sqlx::Error::RowNotFound))
    }
}

pub(crate) fn purpose(name: &str) -> String {
    format!("deployment_secret/{name}")
}
