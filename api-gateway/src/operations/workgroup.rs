//! Workgroups: sources that are migrated together.

use domain::workgroup::{WarningType, WorkgroupStatus};
use domain::{SourceId, WorkgroupId};
use smc::model::{
    self, AssociateSourceServers, CreateWorkgroup, CreateWorkgroupAnswer, DeleteWorkgroup,
    DescribeWorkgroups, DescribeWorkgroupsAnswer, DisassociateSourceServers, Done,
    ModifyWorkgroupAttribute, Operation as _, WorkgroupWarning,
};
use store::client_token::ClientToken;
use store::tag::TaggedKind;
use store::workgroup::{
    ChangeMembers, CreateWorkgroup as Creation, NewWorkgroup, Workgroup, WorkgroupFilter,
};
use store::{Listed, Page, StoreError};

use super::{create_job, id, tag};
use crate::Refusal;
use crate::client_token::digest;
use crate::operation::{Call, Effect, Handle, Resource, Terms, page};

const ONE: &[Resource] = &[Resource::one("workgroup", "WorkgroupId")];
const ONE_WITH_SOURCES: &[Resource] = &[
    Resource::one("workgroup", "WorkgroupId"),
    Resource::one("sourceServer", "SourceId.N"),
];

impl Handle for CreateWorkgroup {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[Resource::any("workgroup")],
        refusals: &[
            "QuotaExceeded.Workgroup",
            "IdempotentParameterMismatch",
            "NumberExceed.Tags",
            "MissingTag.Key",
            "InvalidParameter.TagKey",
            "InvalidParameter.TagValue",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<CreateWorkgroupAnswer, Refusal> {
        let digest = digest(&self);
        let tags = tag::given(self.tag)?;
        let new = NewWorkgroup {
            name: &self.name,
            description: self.description.as_deref().unwrap_or_default(),
            tags: &tags,
            client_token: self.client_token.as_deref().map(|token| ClientToken {
                token,
                operation: Self::ACTION,
                digest: &digest,
            }),
        };
        let store = &call.gateway.store;
        match store.create_workgroup(&call.tenant, &new).await? {
            Creation::Created(id) | Creation::Repeated(id) => Ok(CreateWorkgroupAnswer {
                workgroup_id: id.to_string(),
            }),
            Creation::TokenMismatch => Err(create_job::token_mismatch()),
            Creation::Quota { limit } => Err(Refusal::new(
                "QuotaExceeded.Workgroup",
                format!(
                    "The maximum number of workgroups is exceeded. This account may have {limit}: delete some first."
                ),
            )),
        }
    }
}

impl Handle for DescribeWorkgroups {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: &[Resource::any("workgroup")],
        refusals: tag::FILTER_REFUSALS,
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<DescribeWorkgroupsAnswer, Refusal> {
        let page = page(self.page_number, self.page_size);
        let filter = WorkgroupFilter {
            ids: self.workgroup_id,
            tags: tag::filters(self.tag)?,
            name: self.name,
        };
        let status = self.status.and_then(|asked| asked.as_str().parse().ok());
        let store = &call.gateway.store;
        let Listed { rows, total } = match status {
            None => store.workgroups(&call.tenant, &filter, page).await?,
            Some(status) => of_status(&call, &filter, status, page).await?,
        };
        let ids = rows.iter().map(|group| group.id.to_string());
        let tags = tag::of(&call, TaggedKind::Workgroup, ids).await?;
        Ok(DescribeWorkgroupsAnswer {
            page_number: page.number,
            page_size: page.size,
            total_count: total,
            workgroups: rows.iter().map(|group| show(group, &tags)).collect(),
        })
    }
}

/// Lists groups of one status. A status is known only when all sources of a group are, so all groups are read. Quotas
/// bound the number of groups and of their sources.
async fn of_status(
    call: &Call,
    filter: &WorkgroupFilter,
    status: WorkgroupStatus,
    page: Page,
) -> Result<Listed<Workgroup>, StoreError> {
    let all = Page {
        number: 1,
        size: u32::MAX,
    };
    let mut groups = call
        .gateway
        .store
        .workgroups(&call.tenant, filter, all)
        .await?
        .rows;
    groups.retain(|group| WorkgroupStatus::derive(&group.members) == status);
    let total = groups.len() as i64;
    let (number, size) = (page.number as usize, page.size as usize);
    let before = number.saturating_sub(1) * size;
    let rows = groups.into_iter().skip(before).take(size).collect();
    Ok(Listed { rows, total })
}

fn show(group: &Workgroup, tags: &tag::Shown) -> model::Workgroup {
    let warnings = WarningType::ALL.into_iter();
    model::Workgroup {
        workgroup_id: group.id.to_string(),
        name: group.name.clone(),
        description: group.description.clone(),
        status: WorkgroupStatus::derive(&group.members).as_str().to_owned(),
        warnings: warnings
            .filter_map(|warning| show_warning(group, warning))
            .collect(),
        tags: tags.of(group.id.as_str()),
    }
}

fn show_warning(group: &Workgroup, warning: WarningType) -> Option<WorkgroupWarning> {
    let mut of = group
        .members
        .iter()
        .filter(|member| warning.holds_of(member))
        .map(|member| member.source_id.to_string())
        .peekable();
    of.peek()?;
    Some(WorkgroupWarning {
        warning_type: warning.as_str().to_owned(),
        source_ids: of.collect(),
    })
}

impl Handle for ModifyWorkgroupAttribute {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: ONE,
        refusals: &["InvalidWorkgroupId.NotFound"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<WorkgroupId>(&self.workgroup_id, "WorkgroupId")?;
        let (name, description) = (self.name.as_deref(), self.description.as_deref());
        let store = &call.gateway.store;
        let modified = store.modify_workgroup(&call.tenant, &id, name, description);
        found(modified.await?)
    }
}

impl Handle for DeleteWorkgroup {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: ONE,
        refusals: &["InvalidWorkgroupId.NotFound"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<WorkgroupId>(&self.workgroup_id, "WorkgroupId")?;
        found(
            call.gateway
                .store
                .delete_workgroup(&call.tenant, &id)
                .await?,
        )
    }
}

fn found(found: bool) -> Result<Done, Refusal> {
    if found {
        Ok(Done {})
    } else {
        Err(Refusal::not_found("WorkgroupId"))
    }
}

impl Handle for AssociateSourceServers {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: ONE_WITH_SOURCES,
        refusals: &[
            "InvalidWorkgroupId.NotFound",
            "InvalidSourceId.NotFound",
            "SourceServer.InAnotherWorkgroup",
            "QuotaExceeded.WorkgroupSourceServer",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<WorkgroupId>(&self.workgroup_id, "WorkgroupId")?;
        let sources = source_ids(self.source_id)?;
        let store = &call.gateway.store;
        changed(store.associate_sources(&call.tenant, &id, &sources).await?)
    }
}

impl Handle for DisassociateSourceServers {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: ONE_WITH_SOURCES,
        refusals: &["InvalidWorkgroupId.NotFound", "InvalidSourceId.NotFound"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<WorkgroupId>(&self.workgroup_id, "WorkgroupId")?;
        let sources = source_ids(self.source_id)?;
        let store = &call.gateway.store;
        let left = store.disassociate_sources(&call.tenant, &id, &sources);
        changed(left.await?)
    }
}

fn changed(change: ChangeMembers) -> Result<Done, Refusal> {
    match change {
        ChangeMembers::Changed => Ok(Done {}),
        ChangeMembers::WorkgroupNotFound => Err(Refusal::not_found("WorkgroupId")),
        ChangeMembers::SourceNotFound => Err(Refusal::not_found("SourceId")),
        ChangeMembers::InAnother(source, group) => Err(Refusal::new(
            "SourceServer.InAnotherWorkgroup",
            format!(
                "The specified source server {source} is in workgroup {group}. A source is in one workgroup at most: disassociate it there first."
            ),
        )),
        ChangeMembers::Quota { limit } => Err(Refusal::new(
            "QuotaExceeded.WorkgroupSourceServer",
            format!(
                "The maximum number of source servers in a workgroup is exceeded. It may have {limit}."
            ),
        )),
    }
}

fn source_ids(mut ids: Vec<String>) -> Result<Vec<SourceId>, Refusal> {
    ids.sort();
    ids.dedup();
    ids.iter().map(|text| id(text, "SourceId")).collect()
}
