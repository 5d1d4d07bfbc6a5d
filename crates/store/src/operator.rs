//! What only the operator does: renames and removes tenants.

use domain::TenantId;
use domain::name::Name;

use crate::{Store, StoreError};

/// What became of renaming a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameTenant {
    /// It has the name.
    Renamed,
    /// Another tenant has it.
    NameTaken,
    /// There is no such tenant.
    NotFound,
}

/// What became of removing a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveTenant {
    /// It is gone, with its keys, codes and whatever else it had.
    Removed,
    /// It has some of these.
    InUse {
        /// Sources.
        sources: i64,
        /// Jobs.
        jobs: i64,
        /// Images.
        images: i64,
    },
    /// There is no such tenant.
    NotFound,
}

impl Store {
    /// Gives a tenant another name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn rename_tenant(
        &self,
        id: &TenantId,
        name: &Name,
    ) -> Result<RenameTenant, StoreError> {
        let renamed = sqlx::query!(
            "update tenant set name = $2 where id = $1",
            id.as_str(),
            name.as_str()
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::from);
        match renamed {
            Ok(renamed) if renamed.rows_affected() == 1 => Ok(RenameTenant::Renamed),
            Ok(_) => Ok(RenameTenant::NotFound),
            Err(error) if error.violates("tenant_name_key") => Ok(RenameTenant::NameTaken),
            Err(error) => Err(error),
        }
    }

    /// Removes a tenant that has no sources, jobs or images. The history of its jobs and its audit stay.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_tenant(&self, id: &TenantId) -> Result<RemoveTenant, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // The whole row: whoever is about to add something to the tenant waits, and then finds it gone.
        let locked = sqlx::query_scalar!(
            "select id from tenant where id = $1 for update",
            id.as_str()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if locked.is_none() {
            return Ok(RemoveTenant::NotFound);
        }
        let has = sqlx::query!(
            r#"select (select count(*) from source where tenant = $1) as "sources!",
                (select count(*) from job where tenant = $1) as "jobs!",
                (select count(*) from image where tenant = $1) as "images!""#,
            id.as_str()
        )
        .fetch_one(&mut *transaction)
        .await?;
        if has.sources + has.jobs + has.images > 0 {
            return Ok(RemoveTenant::InUse {
                sources: has.sources,
                jobs: has.jobs,
                images: has.images,
            });
        }
        sqlx::query!("delete from tenant where id = $1", id.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(RemoveTenant::Removed)
    }
}
