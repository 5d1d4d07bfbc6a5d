//! Workgroups: sources that are migrated together.
//!
//! Quotas are counted under a lock: that of the tenant's row for groups, and that of the group's row for its sources.

use std::collections::HashMap;

use domain::tag::{Tag, TagFilter};
use domain::workgroup::Member;
use domain::{SourceId, TenantId, WorkgroupId};
use serde_json::json;
use sqlx::postgres::PgConnection;

use crate::client_token::{self, Claim, ClientToken};
use crate::list::Matching;
use crate::row::{parse, parse_opt};
use crate::source::offline_after_secs;
use crate::tag::{self, TaggedKind};
use crate::{Listed, Page, Store, StoreError, Transaction};

/// A workgroup to be created.
#[derive(Debug, Clone)]
pub struct NewWorkgroup<'a> {
    /// Name of the workgroup.
    pub name: &'a str,
    /// Description of the workgroup, empty for none.
    pub description: &'a str,
    /// Tags of the workgroup.
    pub tags: &'a [Tag],
    /// Client token of the call.
    pub client_token: Option<ClientToken<'a>>,
}

/// Outcome of a request to create a workgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateWorkgroup {
    /// The workgroup was created.
    Created(WorkgroupId),
    /// The same call created this workgroup before.
    Repeated(WorkgroupId),
    /// The token belongs to another call.
    TokenMismatch,
    /// The tenant has as many workgroups as it may have.
    Quota {
        /// Number of workgroups that the tenant may have.
        limit: i32,
    },
}

/// A workgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workgroup {
    /// Id of the workgroup.
    pub id: WorkgroupId,
    /// Name of the workgroup.
    pub name: String,
    /// Description of the workgroup.
    pub description: String,
    /// Sources of the workgroup, by id.
    pub members: Vec<Member>,
}

/// A filter for the list of workgroups; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct WorkgroupFilter {
    /// Ids of the workgroups.
    pub ids: Option<Vec<String>>,
    /// Name of the workgroup.
    pub name: Option<String>,
    /// Tags that the workgroup must have, all of them.
    pub tags: Vec<TagFilter>,
}

/// Outcome of a change of a group's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeMembers {
    /// The group was changed.
    Changed,
    /// The group does not exist, or belongs to another tenant.
    WorkgroupNotFound,
    /// One of the sources does not exist, or belongs to another tenant. Nothing was changed.
    SourceNotFound,
    /// A source is in another group. Nothing was changed.
    InAnother(SourceId, WorkgroupId),
    /// The group would have more sources than it may have. Nothing was changed.
    Quota {
        /// Number of sources that the group may have.
        limit: i32,
    },
}

impl Store {
    /// Creates a workgroup without sources.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_workgroup(
        &self,
        tenant: &TenantId,
        new: &NewWorkgroup<'_>,
    ) -> Result<CreateWorkgroup, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        let limit = sqlx::query_scalar!(
            "select max_workgroups from tenant where id = $1 for no key update",
            tenant.as_str()
        )
        .fetch_one(&mut *transaction)
        .await?;
        let id = WorkgroupId::generate();
        if let Some(token) = new.client_token {
            let answer = json!({ "WorkgroupId": id });
            match client_token::claim(&mut transaction, tenant, token, &answer).await? {
                Claim::New => {}
                Claim::Repeated(answer) => {
                    let earlier = answer["WorkgroupId"].as_str().unwrap_or_default();
                    let earlier = parse("client_token.answer", earlier)?;
                    return Ok(CreateWorkgroup::Repeated(earlier));
                }
                Claim::Mismatch => return Ok(CreateWorkgroup::TokenMismatch),
            }
        }
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from workgroup where tenant = $1"#,
            tenant.as_str()
        )
        .fetch_one(&mut *transaction)
        .await?;
        if count >= i64::from(limit) {
            return Ok(CreateWorkgroup::Quota { limit });
        }
        sqlx::query!(
            "insert into workgroup (id, tenant, name, description) values ($1, $2, $3, $4)",
            id.as_str(),
            tenant.as_str(),
            new.name,
            new.description,
        )
        .execute(&mut *transaction)
        .await?;
        let tagged = [id.to_string()];
        tag::insert(
            &mut transaction,
            tenant,
            TaggedKind::Workgroup,
            &tagged,
            new.tags,
        )
        .await?;
        transaction.commit().await?;
        Ok(CreateWorkgroup::Created(id))
    }

    /// Changes name and description; absent parts stay. `false` if the tenant has no such group.
    ///
    /// # Errors
    /// The database fails.
    pub async fn modify_workgroup(
        &self,
        tenant: &TenantId,
        id: &WorkgroupId,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "update workgroup set name = coalesce($3, name), description = coalesce($4, description)
             where tenant = $1 and id = $2",
            tenant.as_str(),
            id.as_str(),
            name,
            description,
        )
        .execute(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Removes a group; its sources stay. `false` if the tenant has no such group.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_workgroup(
        &self,
        tenant: &TenantId,
        id: &WorkgroupId,
    ) -> Result<bool, StoreError> {
        let deleted = sqlx::query!(
            "delete from workgroup where tenant = $1 and id = $2",
            tenant.as_str(),
            id.as_str()
        )
        .execute(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Returns the tenant's workgroups, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn workgroups(
        &self,
        tenant: &TenantId,
        filter: &WorkgroupFilter,
        page: Page,
    ) -> Result<Listed<Workgroup>, StoreError> {
        let start = self.page_ends.start(tenant, "workgroup", filter, page);
        let mut connection = self.connection_as(tenant).await?;
        let Listed { rows: ids, total } = Matching::of(tenant, "workgroup", &filter.tags)
            .and_one_of("id", filter.ids.as_deref())
            .and("name = ?", filter.name.as_deref())
            .page(start, &mut connection)
            .await?;
        let rows = sqlx::query!(
            "select id, name, description from workgroup where id = any($1) order by created_at desc, id desc",
            &ids
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut members = members(&mut connection, &ids).await?;
        let rows = rows
            .into_iter()
            .map(|row| {
                Ok(Workgroup {
                    members: members.remove(&row.id).unwrap_or_default(),
                    id: parse("workgroup.id", &row.id)?,
                    name: row.name,
                    description: row.description,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Listed { rows, total })
    }

    /// Adds sources to a group. Those that are in the group already stay.
    ///
    /// # Errors
    /// The database fails.
    pub async fn associate_sources(
        &self,
        tenant: &TenantId,
        id: &WorkgroupId,
        source_ids: &[SourceId],
    ) -> Result<ChangeMembers, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        if !lock(&mut transaction, tenant, id).await? {
            return Ok(ChangeMembers::WorkgroupNotFound);
        }
        let Some(groups) = lock_sources(&mut transaction, tenant, source_ids).await? else {
            return Ok(ChangeMembers::SourceNotFound);
        };
        if let Some((source, group)) = groups.into_iter().find(|(_, group)| group != id) {
            return Ok(ChangeMembers::InAnother(source, group));
        }
        let ids: Vec<String> = source_ids.iter().map(ToString::to_string).collect();
        sqlx::query!(
            "update source set workgroup_id = $2 where tenant = $1 and id = any($3)",
            tenant.as_str(),
            id.as_str(),
            &ids,
        )
        .execute(&mut *transaction)
        .await?;
        let quota = sqlx::query!(
            r#"
            select max_workgroup_sources as most,
                (select count(*) from source where workgroup_id = $2) as "members!"
            from tenant where id = $1
            "#,
            tenant.as_str(),
            id.as_str(),
        )
        .fetch_one(&mut *transaction)
        .await?;
        if quota.members > i64::from(quota.most) {
            return Ok(ChangeMembers::Quota { limit: quota.most });
        }
        transaction.commit().await?;
        Ok(ChangeMembers::Changed)
    }

    /// Removes sources from a group. Those that are not in the group stay unchanged.
    ///
    /// # Errors
    /// The database fails.
    pub async fn disassociate_sources(
        &self,
        tenant: &TenantId,
        id: &WorkgroupId,
        source_ids: &[SourceId],
    ) -> Result<ChangeMembers, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        if !lock(&mut transaction, tenant, id).await? {
            return Ok(ChangeMembers::WorkgroupNotFound);
        }
        if lock_sources(&mut transaction, tenant, source_ids)
            .await?
            .is_none()
        {
            return Ok(ChangeMembers::SourceNotFound);
        }
        let ids: Vec<String> = source_ids.iter().map(ToString::to_string).collect();
        sqlx::query!(
            "update source set workgroup_id = null where tenant = $1 and workgroup_id = $2 and id = any($3)",
            tenant.as_str(),
            id.as_str(),
            &ids,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ChangeMembers::Changed)
    }
}

/// Returns the sources of these groups, by id.
async fn members(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<HashMap<String, Vec<Member>>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select source.id, source.workgroup_id as "workgroup_id!",
            last_seen_at > now() - make_interval(secs => $2) and failure_code is null as "is_healthy!",
            last.state as "job_state?", last.cut_over as "is_cut_over?"
        from source left join lateral (
            select state, cut_over from job where job.source_id = source.id and job.state <> 'deleting'
            order by job.created_at desc, job.id desc limit 1) as last on true
        where workgroup_id = any($1) order by source.id
        "#,
        ids,
        offline_after_secs(),
    )
    .fetch_all(connection)
    .await?;
    let mut members: HashMap<String, Vec<Member>> = HashMap::new();
    for row in rows {
        members.entry(row.workgroup_id).or_default().push(Member {
            source_id: parse("source.id", &row.id)?,
            is_healthy: row.is_healthy,
            job: parse_opt("job.state", row.job_state.as_deref())?,
            is_cut_over: row.is_cut_over.unwrap_or(false),
        });
    }
    Ok(members)
}

/// Locks the group against its removal and against another change of its sources; `false` if the tenant has no such
/// group.
async fn lock(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    id: &WorkgroupId,
) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        "select id from workgroup where tenant = $1 and id = $2 for no key update",
        tenant.as_str(),
        id.as_str()
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(found.is_some())
}

/// Locks the sources and returns the groups of those that are in one; `None` if one of the sources does not exist.
async fn lock_sources(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    source_ids: &[SourceId],
) -> Result<Option<Vec<(SourceId, WorkgroupId)>>, StoreError> {
    let ids: Vec<String> = source_ids.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        "select id, workgroup_id from source where tenant = $1 and id = any($2) order by id for no key update",
        tenant.as_str(),
        &ids
    )
    .fetch_all(&mut **transaction)
    .await?;
    if !ids.iter().all(|id| rows.iter().any(|row| row.id == *id)) {
        return Ok(None);
    }
    let groups = rows.into_iter().filter_map(|row| {
        let group = row.workgroup_id?;
        Some((row.id, group))
    });
    groups
        .map(|(source, group)| {
            Ok((
                parse("source.id", &source)?,
                parse("source.workgroup_id", &group)?,
            ))
        })
        .collect::<Result<_, StoreError>>()
        .map(Some)
}
