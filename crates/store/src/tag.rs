//! Tags of sources, jobs and workgroups.
//!
//! A writer of tags has locked the resource's row, so that neither a removal nor another writer comes in between. The
//! schema's trigger removes the tags of a removed resource.

use std::collections::HashMap;

use domain::TenantId;
use domain::tag::{MOST_TAGS, Tag, TagFilter};

use crate::{Store, StoreError, Transaction};

/// Kind of resource that can have tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaggedKind {
    /// Migration sources.
    Source,
    /// Replication jobs.
    Job,
    /// Workgroups.
    Workgroup,
}

impl TaggedKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Source, Self::Job, Self::Workgroup];

    /// Returns the name in the database.
    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Job => "job",
            Self::Workgroup => "workgroup",
        }
    }
}

/// Outcome of a change of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeTags {
    /// The tags were changed.
    Changed,
    /// One of the resources does not exist, or belongs to another tenant. Nothing was changed.
    NotFound,
    /// A resource would have more than [`MOST_TAGS`]. Nothing was changed.
    TooMany,
}

/// One tag of a resource, in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// Id of the resource.
    pub resource_id: String,
    /// The tag.
    pub tag: Tag,
}

/// A filter for the list of tags.
#[derive(Debug, Clone, Default)]
pub struct TagList<'a> {
    /// Resources whose tags are listed; `None` is all of the kind.
    pub ids: Option<Vec<String>>,
    /// Tags that the resources must have, all of them.
    pub with: Vec<TagFilter>,
    /// Resource and key that ended the last page; the list continues behind them.
    pub after: Option<(&'a str, &'a str)>,
    /// Maximum number of rows.
    pub limit: i64,
}

impl Store {
    /// Puts tags on resources. A key that a resource has already receives the new value.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tag_resources(
        &self,
        tenant: &TenantId,
        kind: TaggedKind,
        ids: &[String],
        tags: &[Tag],
    ) -> Result<ChangeTags, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        if !lock(&mut transaction, tenant, kind, ids).await? {
            return Ok(ChangeTags::NotFound);
        }
        insert(&mut transaction, tenant, kind, ids, tags).await?;
        let most = i64::try_from(MOST_TAGS).unwrap_or(i64::MAX);
        let too_many = sqlx::query_scalar!(
            r#"
            select exists (
                select 1 from tag where resource_id = any($1) group by resource_id having count(*) > $2) as "too_many!"
            "#,
            ids,
            most,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if too_many {
            return Ok(ChangeTags::TooMany);
        }
        transaction.commit().await?;
        Ok(ChangeTags::Changed)
    }

    /// Removes tags from resources: those with these keys, or all. Keys that a resource does not have are no error.
    ///
    /// # Errors
    /// The database fails.
    pub async fn untag_resources(
        &self,
        tenant: &TenantId,
        kind: TaggedKind,
        ids: &[String],
        keys: Option<&[String]>,
    ) -> Result<ChangeTags, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        if !lock(&mut transaction, tenant, kind, ids).await? {
            return Ok(ChangeTags::NotFound);
        }
        sqlx::query!(
            "delete from tag where resource_id = any($1) and ($2::text[] is null or key = any($2))",
            ids,
            keys,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ChangeTags::Changed)
    }

    /// Returns the tags of a kind of resource, by resource and key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tags(
        &self,
        tenant: &TenantId,
        kind: TaggedKind,
        list: &TagList<'_>,
    ) -> Result<Vec<TagRow>, StoreError> {
        let (after_id, after_key) = list.after.unwrap_or_default();
        let (tag_keys, tag_values) = wanted(&list.with);
        let rows = sqlx::query!(
            r#"
            select resource_id, key, value from tag
            where tenant = $1 and kind = $2 and ($3::text[] is null or resource_id = any($3))
              and (resource_id, key) > ($4::text, $5::text)
              and ($7::text[] is null or resource_id in (
                select other.resource_id from tag as other join unnest($7, $8::text[]) as wanted (key, value)
                  on wanted.key = other.key and (wanted.value is null or wanted.value = other.value)
                where other.tenant = $1 and other.kind = $2
                group by other.resource_id having count(*) = cardinality($7)))
            order by resource_id, key limit $6
            "#,
            tenant.as_str(),
            kind.as_str(),
            list.ids.as_deref(),
            after_id,
            after_key,
            list.limit,
            tag_keys.as_deref(),
            &tag_values as &[Option<String>],
        )
        .fetch_all(&mut *self.planning_connection_as(tenant).await?)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| TagRow {
                resource_id: row.resource_id,
                tag: Tag {
                    key: row.key,
                    value: row.value,
                },
            })
            .collect())
    }

    /// Returns the tags of these resources, by resource.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tags_of(
        &self,
        tenant: &TenantId,
        kind: TaggedKind,
        ids: &[String],
    ) -> Result<HashMap<String, Vec<Tag>>, StoreError> {
        let rows = sqlx::query!(
            "select resource_id, key, value from tag
            where tenant = $1 and kind = $2 and resource_id = any($3) order by resource_id, key",
            tenant.as_str(),
            kind.as_str(),
            ids,
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?;
        let mut tags: HashMap<String, Vec<Tag>> = HashMap::new();
        for row in rows {
            let (key, value) = (row.key, row.value);
            tags.entry(row.resource_id)
                .or_default()
                .push(Tag { key, value });
        }
        Ok(tags)
    }
}

/// Returns keys and values of filters for a statement that counts the matching tags of each resource. Without filters,
/// there are no keys.
fn wanted(filters: &[TagFilter]) -> (Option<Vec<String>>, Vec<Option<String>>) {
    let (keys, values): (Vec<_>, Vec<_>) = filters
        .iter()
        .map(|filter| (filter.key.clone(), filter.value.clone()))
        .unzip();
    ((!keys.is_empty()).then_some(keys), values)
}

/// Locks the resources; `false` if one of them does not exist.
async fn lock(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    kind: TaggedKind,
    ids: &[String],
) -> Result<bool, StoreError> {
    let tenant = tenant.as_str();
    let found = match kind {
        TaggedKind::Source => {
            sqlx::query_scalar!(
                "select id from source where tenant = $1 and id = any($2) order by id for no key update",
                tenant,
                ids
            )
            .fetch_all(&mut **transaction)
            .await?
        }
        TaggedKind::Job => {
            sqlx::query_scalar!(
                "select id from job where tenant = $1 and id = any($2) order by id for no key update",
                tenant,
                ids
            )
            .fetch_all(&mut **transaction)
            .await?
        }
        TaggedKind::Workgroup => {
            sqlx::query_scalar!(
                "select id from workgroup where tenant = $1 and id = any($2) order by id for no key update",
                tenant,
                ids
            )
            .fetch_all(&mut **transaction)
            .await?
        }
    };
    Ok(ids.iter().all(|id| found.contains(id)))
}

/// Writes the tags of resources whose rows the transaction has created or locked.
pub(crate) async fn insert(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    kind: TaggedKind,
    ids: &[String],
    tags: &[Tag],
) -> Result<(), StoreError> {
    let (keys, values): (Vec<String>, Vec<String>) = tags
        .iter()
        .map(|tag| (tag.key.clone(), tag.value.clone()))
        .unzip();
    sqlx::query!(
        "insert into tag (tenant, kind, resource_id, key, value, created_at)
         select $1, $2, resource.id, given.key, given.value, resource.created_at
         from (select id, created_at from source union all select id, created_at from job union all select id, created_at from workgroup)
             as resource, unnest($4::text[], $5::text[]) as given (key, value)
         where resource.id = any($3)
         on conflict (resource_id, key) do update set value = excluded.value",
        tenant.as_str(),
        kind.as_str(),
        ids,
        &keys,
        &values,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
