//! Workgroups: sources that are migrated together.

use domain::workgroup::{WarningType, WorkgroupStatus};
use domain::{SourceId, WorkgroupId};
use serde_json::{Value, json};
use store::client_token::ClientToken;
use store::tag::TaggedKind;
use store::workgroup::{ChangeMembers, CreateWorkgroup, NewWorkgroup, Workgroup, WorkgroupFilter};
use store::{Listed, Page, StoreError};

use super::{create_job, tag};
use crate::Refusal;
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, PAGE_NUMBER, PAGE_SIZE, Resource, field, page};

const CREATE_NAME: &str = "CreateWorkgroup";

const WORKGROUP_ID: Parameter =
    Parameter::required("WorkgroupId", Rule::Text(128), "The workgroup.");
const SOURCE_IDS: Parameter = Parameter {
    is_required: true,
    ..Parameter::list("SourceId.N", 50, Rule::Text(128), "Ids of sources.")
};
const ONE: &[Resource] = &[Resource::one("workgroup", "WorkgroupId")];
const ONE_WITH_SOURCES: &[Resource] = &[
    Resource::one("workgroup", "WorkgroupId"),
    Resource::one("sourceServer", "SourceId.N"),
];

pub(super) const CREATE: Operation = Operation {
    name: CREATE_NAME,
    summary: "Makes a workgroup, to which sources are associated. A source is in one at most.",
    parameters: &[
        Parameter::required("Name", Rule::WorkgroupName, "The workgroup's name."),
        Parameter::optional("Description", Rule::WorkgroupDescription, "More about it."),
        Parameter::optional(
            "ClientToken",
            Rule::Token(64),
            "Makes repeating the call safe: the same token with the same parameters answers with the same workgroup, for 24 hours.",
        ),
        tag::TAG_KEY,
        tag::TAG_VALUE,
    ],
    answer: &[field("WorkgroupId", "string", "The workgroup.")],
    refusals: &[
        "QuotaExceeded.Workgroup",
        "IdempotentParameterMismatch",
        "NumberExceed.Tags",
        "MissingTag.Key",
        "InvalidParameter.TagKey",
        "InvalidParameter.TagValue",
    ],
    effect: Effect::Writes,
    resources: &[Resource::any("workgroup")],
    handler: |call, arguments| Box::pin(create(call, arguments)),
};

async fn create(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let tags = tag::given(&arguments)?;
    let digest = arguments.digest();
    let new = NewWorkgroup {
        name: arguments.required_text("Name"),
        description: arguments.text("Description").unwrap_or_default(),
        tags: &tags,
        client_token: arguments.text("ClientToken").map(|token| ClientToken {
            token,
            operation: CREATE_NAME,
            digest: &digest,
        }),
    };
    let store = &call.gateway.store;
    match store.create_workgroup(&call.tenant, &new).await? {
        CreateWorkgroup::Created(id) | CreateWorkgroup::Repeated(id) => {
            Ok(Answer::fields(json!({ "WorkgroupId": id })))
        }
        CreateWorkgroup::TokenMismatch => Err(create_job::token_mismatch()),
        CreateWorkgroup::Quota { limit } => Err(Refusal::new(
            "QuotaExceeded.Workgroup",
            format!(
                "The maximum number of workgroups is exceeded. This account may have {limit}: delete some first."
            ),
        )),
    }
}

pub(super) const DESCRIBE: Operation = Operation {
    name: "DescribeWorkgroups",
    summary: "Lists workgroups, newest first. Filters are ANDed. Status and warnings follow from the most recent job of each source.",
    parameters: &[
        Parameter::list("WorkgroupId.N", 50, Rule::Text(128), "Ids of workgroups."),
        Parameter::optional("Name", Rule::Text(256), "The exact name."),
        Parameter::optional(
            "Status",
            Rule::OneOf(&["NotStarted", "InProgress", "Cutover", "Completed"]),
            "The status.",
        ),
        tag::FILTER_KEY,
        tag::FILTER_VALUE,
        PAGE_NUMBER,
        PAGE_SIZE,
    ],
    answer: &[
        field("PageNumber", "integer", "The page."),
        field("PageSize", "integer", "Rows on a page at most."),
        field("TotalCount", "integer", "Rows on all pages."),
        field(
            "Workgroups.Workgroup[].WorkgroupId",
            "string",
            "The workgroup.",
        ),
        field("Workgroups.Workgroup[].Name", "string", "Its name."),
        field(
            "Workgroups.Workgroup[].Description",
            "string",
            "Its description.",
        ),
        field(
            "Workgroups.Workgroup[].Status",
            "string",
            "NotStarted: no source has a job that was started. Completed: each has one that is Finished. Cutover: each has one that is Finished, Waiting, or in the last run of its cut-over. InProgress: else.",
        ),
        field(
            "Workgroups.Workgroup[].Warnings.Warning[].WarningType",
            "string",
            "InError: the job failed. UnRelated: there is no job. NotPassed: the agent is silent or reports an error, and the job is not Finished.",
        ),
        field(
            "Workgroups.Workgroup[].Warnings.Warning[].SourceIds.SourceId[]",
            "string",
            "The sources of which it holds.",
        ),
        field(
            "Workgroups.Workgroup[].Tags.Tag[].Key",
            "string",
            "Key of a tag.",
        ),
        field(
            "Workgroups.Workgroup[].Tags.Tag[].Value",
            "string",
            "Its value.",
        ),
    ],
    refusals: tag::FILTER_REFUSALS,
    effect: Effect::Reads,
    resources: &[Resource::any("workgroup")],
    handler: |call, arguments| Box::pin(describe(call, arguments)),
};

async fn describe(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let page = page(&arguments);
    let filter = WorkgroupFilter {
        ids: arguments.texts("WorkgroupId.N"),
        tags: tag::filters(&arguments)?,
        name: arguments.text("Name").map(str::to_owned),
    };
    let status: Option<WorkgroupStatus> =
        arguments.text("Status").and_then(|text| text.parse().ok());
    let Listed { rows, total } = match status {
        None => {
            call.gateway
                .store
                .workgroups(&call.tenant, &filter, page)
                .await?
        }
        Some(status) => of_status(&call, &filter, status, page).await?,
    };
    let ids = rows.iter().map(|group| group.id.to_string());
    let tags = tag::of(&call, TaggedKind::Workgroup, ids).await?;
    Ok(Answer::fields(json!({
        "PageNumber": page.number,
        "PageSize": page.size,
        "TotalCount": total,
        "Workgroups": list("Workgroup", rows.iter().map(|group| show(group, &tags))),
    })))
}

/// A status is known only when all sources of a group are: of all groups, whose number and that of their sources are quotas.
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

fn show(group: &Workgroup, tags: &tag::Shown) -> Value {
    json!({
        "WorkgroupId": group.id,
        "Name": group.name,
        "Description": group.description,
        "Status": WorkgroupStatus::derive(&group.members).as_str(),
        "Warnings": list("Warning", WarningType::ALL.into_iter().filter_map(|warning| show_warning(group, warning))),
        "Tags": tags.of(group.id.as_str()),
    })
}

fn show_warning(group: &Workgroup, warning: WarningType) -> Option<Value> {
    let of: Vec<Value> = group
        .members
        .iter()
        .filter(|member| warning.holds_of(member))
        .map(|member| Value::from(member.source_id.as_str()))
        .collect();
    (!of.is_empty()).then(|| {
        json!({
            "WarningType": warning.as_str(),
            "SourceIds": list("SourceId", of),
        })
    })
}

pub(super) const MODIFY: Operation = Operation {
    name: "ModifyWorkgroupAttribute",
    summary: "Changes name or description of a workgroup. What is not given stays.",
    parameters: &[
        WORKGROUP_ID,
        Parameter::optional("Name", Rule::WorkgroupName, "The new name."),
        Parameter::optional(
            "Description",
            Rule::WorkgroupDescription,
            "The new description.",
        ),
    ],
    answer: &[],
    refusals: &["InvalidWorkgroupId.NotFound"],
    effect: Effect::Writes,
    resources: ONE,
    handler: |call, arguments| Box::pin(modify(call, arguments)),
};

async fn modify(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = workgroup_id(&arguments)?;
    let (name, description) = (arguments.text("Name"), arguments.text("Description"));
    let store = &call.gateway.store;
    found(
        store
            .modify_workgroup(&call.tenant, &id, name, description)
            .await?,
    )
}

pub(super) const DELETE: Operation = Operation {
    name: "DeleteWorkgroup",
    summary: "Removes a workgroup. Its sources and their jobs stay.",
    parameters: &[WORKGROUP_ID],
    answer: &[],
    refusals: &["InvalidWorkgroupId.NotFound"],
    effect: Effect::Writes,
    resources: ONE,
    handler: |call, arguments| Box::pin(delete(call, arguments)),
};

async fn delete(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = workgroup_id(&arguments)?;
    let store = &call.gateway.store;
    found(store.delete_workgroup(&call.tenant, &id).await?)
}

fn found(found: bool) -> Result<Answer, Refusal> {
    if found {
        Ok(Answer::done())
    } else {
        Err(Refusal::not_found("WorkgroupId"))
    }
}

pub(super) const ASSOCIATE: Operation = Operation {
    name: "AssociateSourceServers",
    summary: "Puts sources into a workgroup: all of them, or none.",
    parameters: &[WORKGROUP_ID, SOURCE_IDS],
    answer: &[],
    refusals: &[
        "InvalidWorkgroupId.NotFound",
        "InvalidSourceId.NotFound",
        "SourceServer.InAnotherWorkgroup",
        "QuotaExceeded.WorkgroupSourceServer",
    ],
    effect: Effect::Writes,
    resources: ONE_WITH_SOURCES,
    handler: |call, arguments| Box::pin(associate(call, arguments)),
};

async fn associate(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = workgroup_id(&arguments)?;
    let sources = source_ids(&arguments)?;
    let store = &call.gateway.store;
    changed(store.associate_sources(&call.tenant, &id, &sources).await?)
}

pub(super) const DISASSOCIATE: Operation = Operation {
    name: "DisassociateSourceServers",
    summary: "Takes sources out of a workgroup. Those that are not in it stay where they are.",
    parameters: &[WORKGROUP_ID, SOURCE_IDS],
    answer: &[],
    refusals: &["InvalidWorkgroupId.NotFound", "InvalidSourceId.NotFound"],
    effect: Effect::Writes,
    resources: ONE_WITH_SOURCES,
    handler: |call, arguments| Box::pin(disassociate(call, arguments)),
};

async fn disassociate(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = workgroup_id(&arguments)?;
    let sources = source_ids(&arguments)?;
    let store = &call.gateway.store;
    changed(
        store
            .disassociate_sources(&call.tenant, &id, &sources)
            .await?,
    )
}

fn changed(change: ChangeMembers) -> Result<Answer, Refusal> {
    match change {
        ChangeMembers::Changed => Ok(Answer::done()),
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

/// The id that the call names. A text that is no id names nothing.
fn workgroup_id(arguments: &Arguments) -> Result<WorkgroupId, Refusal> {
    arguments
        .required_text("WorkgroupId")
        .parse()
        .map_err(|_| Refusal::not_found("WorkgroupId"))
}

fn source_ids(arguments: &Arguments) -> Result<Vec<SourceId>, Refusal> {
    let mut ids = arguments.texts("SourceId.N").unwrap_or_default();
    ids.sort();
    ids.dedup();
    ids.iter()
        .map(|id| id.parse().map_err(|_| Refusal::not_found("SourceId")))
        .collect()
}
