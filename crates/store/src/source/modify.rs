//! Name and description of a source.

use domain::name::Name;
use domain::{SourceId, TenantId};

use crate::{Store, StoreError};

/// Changes of a source; absent parts stay.
#[derive(Debug, Clone, Default)]
pub struct SourceChange {
    /// The new name.
    pub name: Option<Name>,
    /// The new description, which may be empty.
    pub description: Option<String>,
}

/// Outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModifySource {
    /// The source was changed.
    Modified,
    /// Another source of the tenant has that name.
    NameTaken,
    /// The source is being deleted.
    Deleting,
    /// The source does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Changes a source.
    pub async fn modify_source(
        &self,
        tenant: &TenantId,
        id: &SourceId,
        change: &SourceChange,
    ) -> Result<ModifySource, StoreError> {
        let updated = sqlx::query!(
            "update source set name = coalesce($3, name), description = coalesce($4, description)
             where tenant = $1 and id = $2 and not deleting",
            tenant.as_str(),
            id.as_str(),
            change.name.as_ref().map(Name::as_str),
            change.description,
        )
        .execute(&mut *self.connection_as(tenant).await?)
        .await
        .map_err(StoreError::from);
        match updated {
            Ok(updated) if updated.rows_affected() == 1 => Ok(ModifySource::Modified),
            Ok(_) => {
                let exists = sqlx::query!(
                    "select id from source where tenant = $1 and id = $2",
                    tenant.as_str(),
                    id.as_str()
                )
                .fetch_optional(&mut *self.connection_as(tenant).await?)
                .await?;
                Ok(if exists.is_some() {
                    ModifySource::Deleting
                } else {
                    ModifySource::NotFound
                })
            }
            Err(error) if error.violates("source_tenant_name_key") => Ok(ModifySource::NameTaken),
            Err(error) => Err(error),
        }
    }
}
