//! Tags of sources, jobs and workgroups.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::values::texts;
use super::{Done, Id, TagKey, operations};

operations! {
    TagResources -> Done,
    UntagResources -> Done,
    ListTagResources -> ListTagResourcesAnswer,
}

texts! {
    /// The tagged resource.
    ResourceType ["x-any-case": true] {
        SourceServer = "sourceserver", ReplicationJob = "replicationjob", Workgroup = "workgroup",
    }
}

lists! {
    /// A list of tags.
    Tags { "Tag": Tag }
    /// A list of tags with what has them.
    TagResourceList { "TagResource": TagResource }
}

/// A tag of what an answer shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Tag {
    /// Key of a tag.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A tag that is put on something; 20 of them at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NewTag {
    /// Key of a tag; at most 20 tags.
    #[schema(required = true, format = "tag-key", min_length = 1, max_length = 128)]
    pub key: Option<String>,
    /// Its value; default empty.
    #[schema(format = "tag-value", max_length = 128)]
    pub value: Option<String>,
}

/// A tag by which a list is narrowed. Several are ANDed, 20 of them at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagFilter {
    /// Only what has a tag with this key; several tags are ANDed, at most 20.
    #[schema(required = true, format = "tag-key", min_length = 1, max_length = 128)]
    pub key: Option<String>,
    /// And with this value; default any.
    #[schema(format = "tag-value", max_length = 128)]
    pub value: Option<String>,
}

/// Puts tags on sources, jobs or workgroups. A key that is there already gets the new value; a resource has at most 20.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TagResources {
    /// The tagged resource.
    pub resource_type: ResourceType,
    /// Ids of sources, jobs or workgroups, at most 50.
    #[schema(max_items = 1000, value_type = Vec<Id>)]
    pub resource_id: Vec<String>,
    /// The tags.
    #[schema(max_items = 1000)]
    pub tag: Vec<NewTag>,
}

/// Takes tags off sources, jobs or workgroups: those with the given keys, or all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UntagResources {
    /// The tagged resource.
    pub resource_type: ResourceType,
    /// Ids of sources, jobs or workgroups, at most 50.
    #[schema(max_items = 1000, value_type = Vec<Id>)]
    pub resource_id: Vec<String>,
    /// Keys of the tags to take off, at most 20. Keys that are not there are no error.
    #[schema(max_items = 1000, value_type = Option<Vec<TagKey>>)]
    pub tag_key: Option<Vec<String>>,
    /// Take all tags off; default false. It counts only without TagKey.
    pub all: Option<bool>,
}

/// Lists the tags of sources, jobs or workgroups, by resource and key, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagResources {
    /// The tagged resource.
    pub resource_type: ResourceType,
    /// Ids of sources, jobs or workgroups, at most 50.
    #[schema(max_items = 1000, value_type = Option<Vec<Id>>)]
    pub resource_id: Option<Vec<String>>,
    /// Tags that are looked for.
    #[schema(max_items = 1000)]
    pub tag: Option<Vec<TagFilter>>,
    /// NextToken of the page before; none for the first page.
    #[schema(format = "ascii", max_length = 4096)]
    pub next_token: Option<String>,
}

/// Tags on a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListTagResourcesAnswer {
    /// Token of the next page; absent on the last one.
    pub next_token: Option<String>,
    /// The tags of this page.
    pub tag_resources: TagResourceList,
}

/// A tag of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TagResource {
    /// The resource with the tag.
    pub resource_id: String,
    /// ALIYUN::SMC::SOURCESERVER, ALIYUN::SMC::REPLICATIONJOB or ALIYUN::SMC::WORKGROUP.
    pub resource_type: String,
    /// The key.
    pub tag_key: String,
    /// The value.
    pub tag_value: String,
}
