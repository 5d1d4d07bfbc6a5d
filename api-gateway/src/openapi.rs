//! The OpenAPI description, made from the table of operations: `docs/openapi.json`, and `GET /openapi.json`.
//!
//! SMC is an RPC API: every call goes to `/`, and `Action` says which. OpenAPI knows operations by their path only, so each has a path of
//! its own with its name behind a `#`, which no client sends.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use domain::parameters::MAX_LENGTH;
use serde_json::{Map, Value, json};

use crate::arguments::{Parameter, Rule};
use crate::authorization::ACCESS_DENIED_FIELDS;
use crate::contract::COMMON;
use crate::operation::{BYTES, Effect, Operation};
use crate::operations;

/// Where it is served, to everybody: it says nothing that the documents don't.
pub(crate) const PATH: &str = "/openapi.json";

/// The largest system disk that gateways allow by default, in GiB: what `docs/openapi.json` says.
#[cfg(test)]
const DEFAULT_SYSTEM_DISK_GIB: u32 = 500;

/// The answer to whoever asks for it: `text` is that of [`document`].
pub(crate) fn response(text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json;charset=utf-8"),
    );
    response
}

/// The description of a gateway that allows system disks of so many GiB, as JSON.
pub fn document(system_disk_limit_gib: u32) -> Value {
    let paths: Map<String, Value> = operations::ALL
        .iter()
        .map(|operation| {
            let path = format!("/#Action={}", operation.name);
            (
                path,
                json!({ "post": described(operation, system_disk_limit_gib) }),
            )
        })
        .collect();
    let access_denied: Map<String, Value> = ACCESS_DENIED_FIELDS
        .into_iter()
        .map(|name| (name.to_owned(), json!({ "type": "string" })))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wherry",
            "version": smc::API_VERSION,
            "summary": "The SMC API, 2019-06-01.",
            "description": "Calls go to / with GET or POST; parameters are taken from the query and from a form body together. Each call is signed, V1 (HMAC-SHA1 among the parameters) or V3 (ACS3-HMAC-SHA256 in the headers). Format=XML gives XML.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "V1": [] }, { "V3": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "V1": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "Signature",
                    "description": "With AccessKeyId, SignatureMethod=HMAC-SHA1, SignatureVersion=1.0, SignatureNonce and Timestamp.",
                },
                "V3": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "ACS3-HMAC-SHA256, with x-acs-action, x-acs-version, x-acs-date, x-acs-signature-nonce and x-acs-content-sha256.",
                },
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["Code", "Message", "RequestId", "HostId", "Recommend"],
                    "properties": {
                        "Code": {
                            "type": "string",
                            "description": "Stable, for programs. The examples are those of every call.",
                            "examples": COMMON.iter().map(|common| common.code).collect::<Vec<_>>(),
                        },
                        "Message": { "type": "string", "description": "What is wrong and what to do, for people." },
                        "RequestId": { "type": "string" },
                        "HostId": { "type": "string" },
                        "Recommend": { "type": "string" },
                        "AccessDeniedDetail": {
                            "type": "object",
                            "description": "With NoPermission: which policies do not allow the call, and how.",
                            "properties": access_denied,
                        },
                    },
                },
            },
        },
    })
}

fn described(operation: &Operation, system_disk_limit_gib: u32) -> Value {
    let parameters = operation
        .parameters
        .iter()
        .filter(|parameter| !matches!(parameter.rule, Rule::NotOffered(_)))
        .map(|known| parameter(known, system_disk_limit_gib));
    let mut answer = Shape::default();
    answer.add(
        "RequestId",
        "string",
        "Names this call in the gateway's log.",
    );
    for field in operation.answer.iter().filter(|field| field.kind != BYTES) {
        answer.add(field.path, field.kind, field.meaning);
    }
    let content = if operation.answers_file() {
        json!({ "application/octet-stream": {} })
    } else {
        in_both_formats(&answer.schema())
    };
    let own = if operation.refusals.is_empty() {
        "none".to_owned()
    } else {
        operation.refusals.join(", ")
    };
    json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters.collect::<Vec<_>>(),
        "responses": {
            "200": { "description": "Done.", "content": content },
            "default": {
                "description": format!("Not done. Codes of its own: {own}."),
                "content": in_both_formats(&json!({ "$ref": "#/components/schemas/Error" })),
            },
        },
        "x-ram-action": format!("smc:{}", operation.name),
        "x-changes-something": operation.effect == Effect::Writes,
    })
}

/// The same tree, as JSON and with `Format=XML`.
fn in_both_formats(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema }, "text/xml": { "schema": schema } })
}

fn parameter(parameter: &Parameter, system_disk_limit_gib: u32) -> Value {
    let mut schema = schema(parameter.rule, system_disk_limit_gib);
    let mut name = parameter.name.to_owned();
    let mut meaning = parameter.meaning.to_owned();
    if parameter.most > 0 {
        meaning = format!("{meaning} N from 1 to {}.", parameter.most);
        name = name.replace(".N", ".1");
    }
    if let (Rule::Only(_, sentence), Some(schema)) = (parameter.rule, schema.as_object_mut()) {
        schema.insert("description".to_owned(), json!(sentence));
    }
    json!({
        "name": name,
        "in": "query",
        "required": parameter.is_required,
        "description": meaning,
        "schema": schema,
    })
}

fn schema(rule: Rule, system_disk_limit_gib: u32) -> Value {
    match rule {
        Rule::Text(most) | Rule::Token(most) => json!({ "type": "string", "maxLength": most }),
        Rule::Name => {
            json!({ "type": "string", "minLength": 2, "maxLength": 128, "description": "Letters, digits, colon, underscore and hyphen, a letter first." })
        }
        Rule::SourceDescription => {
            json!({ "type": "string", "maxLength": 256, "pattern": "^(?!https?://)" })
        }
        Rule::Integer(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Rule::SystemDiskGib => {
            json!({ "type": "integer", "minimum": 20, "maximum": system_disk_limit_gib })
        }
        Rule::Boolean => json!({ "type": "boolean" }),
        Rule::Time => {
            json!({ "type": "string", "format": "date-time", "examples": ["2026-11-23T12:00:00Z"] })
        }
        Rule::OneOf(texts) | Rule::OneOfAnyCase(texts) | Rule::ResourceType(texts) => {
            json!({ "type": "string", "enum": texts })
        }
        Rule::ReplicationParameters => {
            json!({ "type": "string", "maxLength": MAX_LENGTH, "contentMediaType": "application/json" })
        }
        Rule::WorkgroupName => json!({ "type": "string", "minLength": 2, "maxLength": 64 }),
        Rule::WorkgroupDescription => {
            json!({ "type": "string", "minLength": 2, "maxLength": 256 })
        }
        Rule::TagKey => json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
        Rule::TagValue => json!({ "type": "string", "maxLength": 128 }),
        Rule::Only(value, _) => json!({ "type": "string", "enum": [value] }),
        Rule::NotOffered(_) => json!(false),
    }
}

/// The answer's tree, grown from paths such as `Images.Image[].ImageId`.
#[derive(Debug, Default)]
struct Shape {
    kind: &'static str,
    meaning: &'static str,
    is_list: bool,
    members: Vec<(String, Shape)>,
}

impl Shape {
    fn add(&mut self, path: &str, kind: &'static str, meaning: &'static str) {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let name = first.trim_end_matches("[]");
        let place = self.members.iter().position(|(known, _)| known == name);
        let place = place.unwrap_or_else(|| {
            self.members.push((name.to_owned(), Self::default()));
            self.members.len() - 1
        });
        let member = &mut self.members[place].1;
        member.is_list |= first.ends_with("[]");
        if rest.is_empty() {
            (member.kind, member.meaning) = (kind, meaning);
        } else {
            member.add(rest, kind, meaning);
        }
    }

    fn schema(&self) -> Value {
        let one = if self.members.is_empty() {
            json!({ "type": self.kind, "description": self.meaning })
        } else {
            let properties: Map<String, Value> = self
                .members
                .iter()
                .map(|(name, member)| (name.clone(), member.schema()))
                .collect();
            json!({ "type": "object", "properties": properties })
        };
        if self.is_list {
            json!({ "type": "array", "items": one })
        } else {
            one
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE=1` writes the page.
    #[test]
    fn the_description_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let wanted = format!("{:#}\n", document(DEFAULT_SYSTEM_DISK_GIB));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &wanted).expect("docs/ can be written");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/openapi.json is stale: UPDATE=1 cargo nextest run -p api-gateway openapi writes it"
        );
    }

    #[test]
    fn lists_are_wrapped_twice_and_hold_their_fields() {
        let document = document(DEFAULT_SYSTEM_DISK_GIB);
        let answer = &document["paths"]["/#Action=DescribeReplicationJobs"]["post"]["responses"]["200"]
            ["content"]["application/json"]["schema"]["properties"];
        let jobs = &answer["ReplicationJobs"]["properties"]["ReplicationJob"];
        assert_eq!(jobs["type"], "array");
        assert_eq!(jobs["items"]["properties"]["JobId"]["type"], "string");
        let disks = &jobs["items"]["properties"]["DataDisks"]["properties"]["DataDisk"];
        assert_eq!(disks["items"]["properties"]["Size"]["type"], "integer");
    }

    #[test]
    fn every_field_has_a_type_of_json_schema() {
        for operation in operations::ALL {
            for field in operation.answer {
                assert!(
                    ["string", "integer", "number", "boolean", BYTES].contains(&field.kind),
                    "{} {}: {}",
                    operation.name,
                    field.path,
                    field.kind
                );
            }
        }
    }
}
