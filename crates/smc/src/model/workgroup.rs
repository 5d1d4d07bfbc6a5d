//! Workgroups: sources that are migrated together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::values::texts;
use super::{Done, Id, NewTag, TagFilter, Tags, operations, paged};

operations! {
    CreateWorkgroup -> CreateWorkgroupAnswer,
    DescribeWorkgroups -> DescribeWorkgroupsAnswer,
    ModifyWorkgroupAttribute -> Done,
    DeleteWorkgroup -> Done,
    AssociateSourceServers -> Done,
    DisassociateSourceServers -> Done,
}

paged!(DescribeWorkgroups: workgroups of Workgroup);

texts! {
    /// The status of a workgroup.
    WorkgroupStatus {
        NotStarted = "NotStarted", InProgress = "InProgress", Cutover = "Cutover", Completed = "Completed",
    }
}

/// Makes a workgroup, to which sources are associated. A source is in one at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateWorkgroup {
    /// The workgroup's name.
    #[schema(format = "workgroup-name", min_length = 2, max_length = 64)]
    pub name: String,
    /// More about it.
    #[schema(format = "workgroup-description", min_length = 2, max_length = 256)]
    pub description: Option<String>,
    /// Makes repeating the call safe: the same token with the same parameters answers with the same workgroup,
    /// for 24 hours.
    #[schema(format = "ascii", max_length = 64)]
    pub client_token: Option<String>,
    /// Its tags.
    #[schema(max_items = 1000)]
    pub tag: Option<Vec<NewTag>>,
}

/// A workgroup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateWorkgroupAnswer {
    /// The workgroup.
    pub workgroup_id: String,
}

/// Lists workgroups, newest first. Filters are ANDed. Status and warnings follow from the most recent job of each
/// source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeWorkgroups {
    /// Ids of workgroups.
    #[schema(max_items = 50, value_type = Option<Vec<Id>>)]
    pub workgroup_id: Option<Vec<String>>,
    /// The exact name.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The status.
    pub status: Option<WorkgroupStatus>,
    /// Tags that are looked for.
    #[schema(max_items = 1000)]
    pub tag: Option<Vec<TagFilter>>,
    /// The page, from 1; default 1.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64)]
    pub page_number: Option<u32>,
    /// Rows on a page; default 10.
    #[schema(minimum = 1, maximum = 50)]
    pub page_size: Option<u32>,
}

/// Workgroups on a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeWorkgroupsAnswer {
    /// The page.
    pub page_number: u32,
    /// Rows on a page at most.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: i64,
    /// The workgroups of this page.
    pub workgroups: Workgroups,
}

lists! {
    /// A list of workgroups.
    Workgroups { "Workgroup": Workgroup }
    /// A list of warnings of a workgroup.
    WorkgroupWarnings { "Warning": WorkgroupWarning }
    /// A list of ids of sources.
    SourceIds { "SourceId": String }
}

/// A workgroup.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Workgroup {
    /// The workgroup.
    pub workgroup_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// NotStarted: no source has a job that was started. Completed: each has one that is Finished. Cutover: each has
    /// one that is Finished, Waiting, or in the last run of its cut-over. InProgress: else.
    pub status: String,
    /// Its warnings.
    pub warnings: WorkgroupWarnings,
    /// Its tags.
    pub tags: Tags,
}

/// A warning of a workgroup.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct WorkgroupWarning {
    /// InError: the job failed. UnRelated: there is no job. NotPassed: the agent is silent or reports an error, and the
    /// job is not Finished.
    pub warning_type: String,
    /// The sources of which it holds.
    pub source_ids: SourceIds,
}

/// Changes name or description of a workgroup. What is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ModifyWorkgroupAttribute {
    /// The workgroup.
    #[schema(max_length = 128)]
    pub workgroup_id: String,
    /// The new name.
    #[schema(format = "workgroup-name", min_length = 2, max_length = 64)]
    pub name: Option<String>,
    /// The new description.
    #[schema(format = "workgroup-description", min_length = 2, max_length = 256)]
    pub description: Option<String>,
}

/// Removes a workgroup. Its sources and their jobs stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteWorkgroup {
    /// The workgroup.
    #[schema(max_length = 128)]
    pub workgroup_id: String,
}

/// Puts sources into a workgroup: all of them, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AssociateSourceServers {
    /// The workgroup.
    #[schema(max_length = 128)]
    pub workgroup_id: String,
    /// Ids of sources.
    #[schema(max_items = 50, value_type = Vec<Id>)]
    pub source_id: Vec<String>,
}

/// Takes sources out of a workgroup. Those that are not in it stay where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DisassociateSourceServers {
    /// The workgroup.
    #[schema(max_length = 128)]
    pub workgroup_id: String,
    /// Ids of sources.
    #[schema(max_items = 50, value_type = Vec<Id>)]
    pub source_id: Vec<String>,
}
