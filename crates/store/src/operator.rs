//! Operations of the operator alone: renaming and removing tenants.

use domain::TenantId;
use domain::name::Name;

use crate::{Store, StoreError};

/// Outcome of a request to rename a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameTenant {
    /// The tenant was renamed.
    Renamed,
    /// Another tenant has the name.
    NameTaken,
    /// The tenant does not exist.
    NotFound,
}

/// Outcome of a request to remove a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveTenant {
    /// The tenant is gone, with its keys, codes and everything else that it had.
    Removed,
    /// The tenant has sources, jobs or images.
    InUse {
        /// Number of sources.
        sources: i64,
        /// Number of jobs.
        jobs: i64,
        /// Number of images.
        images: i64,
    },
    /// The tenant does not exist.
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
        // The whole row is locked. A transaction that adds something to the tenant waits, and then finds the tenant
        // gone.
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
