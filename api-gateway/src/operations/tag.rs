//! Tags of sources, jobs and workgroups: put on, take off, list, and narrow other lists by them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::tag::{MOST_TAGS, Tag, TagFilter};
use serde_json::{Value, json};
use store::tag::{ChangeTags, TagList, TagRow, TaggedKind};

use crate::Refusal;
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, Resource, field};

/// Resources that one call may name.
const MOST_RESOURCES: usize = 50;
/// Tags on a page of ListTagResources, which has no parameter for it.
const PAGE: usize = 100;
/// Largest N that is read at all; more than the codes below allow is counted, not numbered.
const MOST_READ: u32 = 1000;

/// `Tag.N.Key` of what is to be tagged.
pub(super) const TAG_KEY: Parameter = Parameter::list(
    "Tag.N.Key",
    MOST_READ,
    Rule::TagKey,
    "Key of a tag; at most 20 tags.",
);
/// `Tag.N.Value` of what is to be tagged.
pub(super) const TAG_VALUE: Parameter = Parameter::list(
    "Tag.N.Value",
    MOST_READ,
    Rule::TagValue,
    "Its value; default empty.",
);
/// `Tag.N.Key` of a list.
pub(super) const FILTER_KEY: Parameter = Parameter::list(
    "Tag.N.Key",
    MOST_READ,
    Rule::TagKey,
    "Only what has a tag with this key; several tags are ANDed, at most 20.",
);
/// `Tag.N.Value` of a list.
pub(super) const FILTER_VALUE: Parameter = Parameter::list(
    "Tag.N.Value",
    MOST_READ,
    Rule::TagValue,
    "And with this value; default any.",
);

const RESOURCE_TYPE: Parameter = Parameter::required(
    "ResourceType",
    Rule::ResourceType(&["sourceserver", "replicationjob", "workgroup"]),
    "What is tagged.",
);
const RESOURCE_ID: Parameter = Parameter {
    is_required: true,
    ..Parameter::list(
        "ResourceId.N",
        MOST_READ,
        Rule::Text(128),
        "Ids of sources, jobs or workgroups, at most 50.",
    )
};

/// Codes of lists that are narrowed by tags.
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

pub(super) const TAG: Operation = Operation {
    name: "TagResources",
    summary: "Puts tags on sources, jobs or workgroups. A key that is there already gets the new value; a resource has at most 20.",
    parameters: &[
        RESOURCE_TYPE,
        RESOURCE_ID,
        Parameter {
            is_required: true,
            ..TAG_KEY
        },
        TAG_VALUE,
    ],
    answer: &[],
    refusals: REFUSALS,
    effect: Effect::Writes,
    resources: &[Resource::of_kind("ResourceType", "ResourceId.N").where_it_lies()],
    handler: |call, arguments| Box::pin(tag(call, arguments)),
};

async fn tag(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let kind = kind(&arguments);
    let ids = resource_ids(&arguments)?.unwrap_or_default();
    let tags = given(&arguments)?;
    let store = &call.gateway.store;
    changed(store.tag_resources(&call.tenant, kind, &ids, &tags).await?)
}

pub(super) const UNTAG: Operation = Operation {
    name: "UntagResources",
    summary: "Takes tags off sources, jobs or workgroups: those with the given keys, or all.",
    parameters: &[
        RESOURCE_TYPE,
        RESOURCE_ID,
        Parameter::list(
            "TagKey.N",
            MOST_READ,
            Rule::Text(128),
            "Keys of the tags to take off, at most 20. Keys that are not there are no error.",
        ),
        Parameter::optional(
            "All",
            Rule::Boolean,
            "Take all tags off; default false. It counts only without TagKey.",
        ),
    ],
    answer: &[],
    refusals: &[
        "MissingParameter.ResourceType",
        "InvalidResourceType.NotFound",
        "NumberExceed.ResourceIds",
        "NumberExceed.Tags",
        "Duplicate.ResourceId",
        "InvalidResourceId.NotFound",
        "MissingTagKey",
    ],
    effect: Effect::Writes,
    resources: &[Resource::of_kind("ResourceType", "ResourceId.N").where_it_lies()],
    handler: |call, arguments| Box::pin(untag(call, arguments)),
};

async fn untag(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let kind = kind(&arguments);
    let ids = resource_ids(&arguments)?.unwrap_or_default();
    let keys = arguments.texts("TagKey.N");
    match &keys {
        Some(keys) if keys.len() > MOST_TAGS => return Err(too_many_tags()),
        Some(_) => {}
        None if arguments.boolean("All") == Some(true) => {}
        None => return Err(Refusal::missing("TagKey")),
    }
    let store = &call.gateway.store;
    let untagged = store.untag_resources(&call.tenant, kind, &ids, keys.as_deref());
    changed(untagged.await?)
}

fn changed(change: ChangeTags) -> Result<Answer, Refusal> {
    match change {
        ChangeTags::Changed => Ok(Answer::done()),
        ChangeTags::NotFound => Err(Refusal::new(
            "InvalidResourceId.NotFound",
            "The specified ResourceIds do not exist.",
        )),
        ChangeTags::TooMany => Err(too_many_tags()),
    }
}

pub(super) const LIST: Operation = Operation {
    name: "ListTagResources",
    summary: "Lists the tags of sources, jobs or workgroups, by resource and key, page by page.",
    parameters: &[
        RESOURCE_TYPE,
        Parameter {
            is_required: false,
            ..RESOURCE_ID
        },
        FILTER_KEY,
        FILTER_VALUE,
        Parameter::optional(
            "NextToken",
            Rule::Token(4096),
            "NextToken of the page before; none for the first page.",
        ),
    ],
    answer: &[
        field(
            "NextToken",
            "string",
            "Where the next page begins; absent on the last one.",
        ),
        field(
            "TagResources.TagResource[].ResourceId",
            "string",
            "What has the tag.",
        ),
        field(
            "TagResources.TagResource[].ResourceType",
            "string",
            "ALIYUN::SMC::SOURCESERVER, ALIYUN::SMC::REPLICATIONJOB or ALIYUN::SMC::WORKGROUP.",
        ),
        field("TagResources.TagResource[].TagKey", "string", "The key."),
        field(
            "TagResources.TagResource[].TagValue",
            "string",
            "The value.",
        ),
    ],
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
    effect: Effect::Reads,
    resources: &[Resource::of_kind("ResourceType", "ResourceId.N").where_it_lies()],
    handler: |call, arguments| Box::pin(list_tags(call, arguments)),
};

async fn list_tags(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let kind = kind(&arguments);
    let after = arguments.text("NextToken").map(read_token).transpose()?;
    let wanted = TagList {
        ids: resource_ids(&arguments)?,
        with: filters(&arguments)?,
        after: after.as_ref().map(|(id, key)| (id.as_str(), key.as_str())),
        // One more than a page tells whether there is another.
        limit: i64::try_from(PAGE + 1).unwrap_or(i64::MAX),
    };
    let mut rows = call.gateway.store.tags(&call.tenant, kind, &wanted).await?;
    let more = rows.len() > PAGE;
    rows.truncate(PAGE);
    Ok(Answer::fields(json!({
        "NextToken": rows.last().filter(|_| more).map(next_token),
        "TagResources": list("TagResource", rows.iter().map(|row| json!({
            "ResourceId": row.resource_id,
            "ResourceType": format!("ALIYUN::SMC::{}", wire_kind(kind).to_uppercase()),
            "TagKey": row.tag.key,
            "TagValue": row.tag.value,
        }))),
    })))
}

/// Where a page ended. Opaque to callers, and of use only to the account that got it: every statement asks for its own rows.
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
                "It is the NextToken of an earlier answer, unchanged.",
            )
        })
}

fn wire_kind(kind: TaggedKind) -> &'static str {
    match kind {
        TaggedKind::Source => "sourceserver",
        TaggedKind::Job => "replicationjob",
        TaggedKind::Workgroup => "workgroup",
    }
}

fn kind(arguments: &Arguments) -> TaggedKind {
    let named = arguments.required_text("ResourceType");
    TaggedKind::ALL
        .into_iter()
        .find(|kind| wire_kind(*kind) == named)
        .expect("the table lets through only these")
}

fn resource_ids(arguments: &Arguments) -> Result<Option<Vec<String>>, Refusal> {
    let Some(ids) = arguments.texts("ResourceId.N") else {
        return Ok(None);
    };
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
    Ok(Some(ids))
}

/// The tags that the call gives.
pub(super) fn given(arguments: &Arguments) -> Result<Vec<Tag>, Refusal> {
    let tags = keys_and_values(arguments)?;
    if (1..tags.len()).any(|last| tags[..last].iter().any(|(key, _)| *key == tags[last].0)) {
        return Err(Refusal::new(
            "InvalidParameter.TagKey",
            "The specified tag key is not valid. It is given twice.",
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

fn keys_and_values(arguments: &Arguments) -> Result<Vec<(String, Option<String>)>, Refusal> {
    let keys = arguments.numbered_texts("Tag.N.Key");
    let mut values = arguments.numbered_texts("Tag.N.Value");
    if values.keys().any(|number| !keys.contains_key(number)) {
        return Err(Refusal::missing("Tag.Key"));
    }
    if keys.len() > MOST_TAGS {
        return Err(too_many_tags());
    }
    Ok(keys
        .into_iter()
        .map(|(number, key)| (key, values.remove(&number)))
        .collect())
}

fn too_many_tags() -> Refusal {
    Refusal::new(
        "NumberExceed.Tags",
        "The maximum number of the Tag parameters cannot exceed 20.",
    )
}

/// What a list is narrowed to by the call's tags.
pub(super) fn filters(arguments: &Arguments) -> Result<Vec<TagFilter>, Refusal> {
    let tags = keys_and_values(arguments)?;
    Ok(tags
        .into_iter()
        .map(|(key, value)| TagFilter { key, value })
        .collect())
}

/// The tags of the rows of an answer.
pub(super) struct Shown(HashMap<String, Vec<Tag>>);

/// Reads the tags of what an answer lists.
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
    /// `Tags` of one resource.
    pub(super) fn of(&self, id: &str) -> Value {
        let tags = self.0.get(id).into_iter().flatten();
        list(
            "Tag",
            tags.map(|tag| json!({ "Key": tag.key, "Value": tag.value })),
        )
    }
}
