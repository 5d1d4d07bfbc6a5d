//! Check of the database's schema.

use crate::{Store, StoreError};

impl Store {
    /// Checks that every migration of this version was applied, so that a role on an empty or older database fails at
    /// its start.
    ///
    /// # Errors
    /// [`StoreError::SchemaMissing`], or an error of the database.
    pub async fn require_schema(&self) -> Result<(), StoreError> {
        let wanted = sqlx::migrate!()
            .iter()
            .map(|migration| migration.version)
            .max()
            .unwrap_or_default();
        let has_table = sqlx::query_scalar!(
            r#"select to_regclass('_sqlx_migrations') is not null as "has_table!""#
        )
        .fetch_one(&self.pool)
        .await?;
        if !has_table {
            return Err(StoreError::SchemaMissing);
        }
        // Not checked at compile time: the table is the migrator's own.
        let applied: Option<i64> =
            sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
                .fetch_one(&self.pool)
                .await?;
        if applied.unwrap_or_default() < wanted {
            return Err(StoreError::SchemaMissing);
        }
        Ok(())
    }
}
