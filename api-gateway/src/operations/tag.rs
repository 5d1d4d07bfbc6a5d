//! Tags of sources, jobs and workgroups: add, remove, list, and filter other lists by them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::tag::{MOST_TAGS, Tag, TagFilter};
use serde_json::json;
use smc::model::{
    self, Done, ListTagResources, ListTagResourcesAnswer, ResourceType, TagResource, TagResources,
    UntagResources,
};
use store::tag::{ChangeTags, TagList, TagRow, TaggedKind};

use crate::Refusal;
use crate::operation::{Call, Effect, Handle, Resource, Terms};

/// Most resources in one call.
const MOST_RESOURCES: usize = 50;
/// Tags on a page of ListTagResources, which has no parameter for it.
const PAGE: usize = 100;

/// Error codes of lists that are filtered by tags.
pub(super) const FILTER_REFUSALS: &[&str] = &[
    "NumberExceed.Tags",
    "MissingTag.Key",
    "InvalidParameter.TagKey",
    "InvalidParameter.TagValue",
];

const REFUSALS: &[&str] = &[
    "MissingParameter.ResourceType",
    "InvalidResourceType.NotFound",
    "NumberExceed.ResourceIds",
    "NumberExceed.Tags",
    "Duplicate.ResourceId",
    "InvalidResourceId.NotFound",
    "MissingTag.Key",
    "InvalidParameter.TagKey",
    "InvalidParameter.TagValue",
];

/// The resources that a call names.
const NAMED: &[Resource] = &[Resource::of_kind("ResourceType", "ResourceId.N").where_it_lies()];

impl Handle for TagResources {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: NAMED,
        refusals: REFUSALS,
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        check_ids(&self.resource_id)?;
        let tags = given(Some(self.tag))?;
        let store = &call.gateway.store;
        let kind = kind(self.resource_type);
        let tagged = store.tag_resources(&call.tenant, kind, &self.resource_id, &tags);
        changed(tagged.await?)
    }
}

impl Handle for UntagResources {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: NAMED,
        refusals: &[
            "MissingParameter.ResourceType",
            "InvalidResourceType.NotFound",
            "NumberExceed.ResourceIds",
            "NumberExceed.Tags",
            "Duplicate.ResourceId",
            "InvalidResourceId.NotFound",
            "MissingTagKey",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        check_ids(&self.resource_id)?;
        match &self.tag_key {
            Some(keys) if keys.len() > MOST_TAGS => return Err(too_many_tags()),
            Some(_) => {}
            None if self.all == Some(true) => {}
            None => return Err(Refusal::missing("TagKey")),
        }
        let store = &call.gateway.store;
        let (kind, keys) = (kind(self.resource_type), self.tag_key.as_deref());
        let untagged = store.untag_resources(&call.tenant, kind, &self.resource_id, keys);
        changed(untagged.await?)
    }
}

fn changed(change: ChangeTags) -> Result<Done, Refusal> {
    match change {
        ChangeTags::Changed => Ok(Done {}),
        ChangeTags::NotFound => Err(Refusal::new(
            "InvalidResourceId.NotFound",
            "The specified ResourceIds do not exist.",
        )),
        ChangeTags::TooMany => Err(too_many_tags()),
    }
}

impl Handle for ListTagResources {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: NAMED,
        refusals: &[
            "MissingParameter.ResourceType",
            "InvalidResourceType.NotFound",
            "NumberExceed.ResourceIds",
            "NumberExceed.Tags",
            "Duplicate.ResourceId",
            "MissingTag.Key",
            "InvalidParameter.TagKey",
            "InvalidParameter.TagValue",
        ],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<ListTagResourcesAnswer, Refusal> {
        let kind = kind(self.resource_type);
        let after = self.next_token.as_deref().map(read_token).transpose()?;
        check_ids(self.resource_id.as_deref().unwrap_or_default())?;
        let wanted = TagList {
            ids: self.resource_id,
            with: filters(self.tag)?,
            after: after.as_ref().map(|(id, key)| (id.as_str(), key.as_str())),
            // One more row than a page shows if there is another page.
            limit: i64::try_from(PAGE + 1).unwrap_or(i64::MAX),
        };
        let mut rows = call.gateway.store.tags(&call.tenant, kind, &wanted).await?;
        let more = rows.len() > PAGE;
        rows.truncate(PAGE);
        let resource_type = self.resource_type.as_str().to_uppercase();
        Ok(ListTagResourcesAnswer {
            next_token: rows.last().filter(|_| more).map(next_token),
            tag_resources: (rows.into_iter())
                .map(|row| TagResource {
                    resource_id: row.resource_id,
                    resource_type: format!("ALIYUN::SMC::{resource_type}"),
                    tag_key: row.tag.key,
                    tag_value: row.tag.value,
                })
                .collect(),
        })
    }
}

/// Returns the token for the end of a page. It is opaque to callers, and of use only to its account: every statement
/// asks for the account's own rows.
fn next_token(row: &TagRow) -> String {
    URL_SAFE_NO_PAD.encode(json!([row.resource_id, row.tag.key]).to_string())
}

fn read_token(token: &str) -> Result<(String, String), Refusal> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| {
            Refusal::invalid(
                "NextToken",
                "It must be the NextToken of an earlier answer, unchanged.",
            )
        })
}

fn kind(named: ResourceType) -> TaggedKind {
    match named {
        ResourceType::SourceServer => TaggedKind::Source,
        ResourceType::ReplicationJob => TaggedKind::Job,
        ResourceType::Workgroup => TaggedKind::Workgroup,
    }
}

fn check_ids(ids: &[String]) -> Result<(), Refusal> {
    if ids.len() > MOST_RESOURCES {
        return Err(Refusal::new(
            "NumberExceed.ResourceIds",
            "The maximum number of ResourceId parameters cannot exceed 50.",
        ));
    }
    if (1..ids.len()).any(|position| ids[..position].contains(&ids[position])) {
        return Err(Refusal::new(
            "Duplicate.ResourceId",
            "The ResourceId contains duplicate values.",
        ));
    }
    Ok(())
}

/// Returns the tags that a call gives.
pub(super) fn given(tags: Option<Vec<model::NewTag>>) -> Result<Vec<Tag>, Refusal> {
    let tags = tags.into_iter().flatten();
    let tags = keys_and_values(tags.map(|tag| (tag.key, tag.value)))?;
    if (1..tags.len()).any(|last| tags[..last].iter().any(|(key, _)| *key == tags[last].0)) {
        return Err(Refusal::new(
            "InvalidParameter.TagKey",
            "The specified tag key is not valid. It must be given once.",
        ));
    }
    Ok(tags
        .into_iter()
        .map(|(key, value)| Tag {
            key,
            value: value.unwrap_or_default(),
        })
        .collect())
}

/// Skips the places of the list at which nothing is given.
fn keys_and_values(
    tags: impl Iterator<Item = (Option<String>, Option<String>)>,
) -> Result<Vec<(String, Option<String>)>, Refusal> {
    let given = tags.filter(|tag| *tag != (None, None));
    let keyed = given.map(|(key, value)| Some((key?, value)));
    let tags: Option<Vec<_>> = keyed.collect();
    let tags = tags.ok_or_else(|| Refusal::missing("Tag.Key"))?;
    if tags.len() > MOST_TAGS {
        return Err(too_many_tags());
    }
    Ok(tags)
}

fn too_many_tags() -> Refusal {
    Refusal::new(
        "NumberExceed.Tags",
        "The maximum number of the Tag parameters cannot exceed 20.",
    )
}

/// Returns the tag filters of a call for a list.
pub(super) fn filters(tags: Option<Vec<model::TagFilter>>) -> Result<Vec<TagFilter>, Refusal> {
    let tags = tags.into_iter().flatten();
    let tags = keys_and_values(tags.map(|tag| (tag.key, tag.value)))?;
    Ok(tags
        .into_iter()
        .map(|(key, value)| TagFilter { key, value })
        .collect())
}

/// The tags of the rows of an answer.
pub(super) struct Shown(HashMap<String, Vec<Tag>>);

/// Reads the tags of the resources in an answer.
pub(super) async fn of(
    call: &Call,
    kind: TaggedKind,
    ids: impl Iterator<Item = String>,
) -> Result<Shown, Refusal> {
    let store = &call.gateway.store;
    let ids: Vec<String> = ids.collect();
    Ok(Shown(store.tags_of(&call.tenant, kind, &ids).await?))
}

impl Shown {
    /// Returns `Tags` of one resource.
    pub(super) fn of(&self, id: &str) -> model::Tags {
        let tags = self.0.get(id).into_iter().flatten().cloned();
        tags.map(|Tag { key, value }| model::Tag { key, value })
            .collect()
    }
}
