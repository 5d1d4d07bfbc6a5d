//! The OpenAPI description, made from the table of operations: `docs/openapi.json`, and `GET /openapi.json`.
//!
//! SMC is an RPC API: every call goes to `/`, and `Action` says which. OpenAPI knows operations by their path only, so each has a path of
//! its own with its name behind a `#`, which no client sends.

use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use serde_json::{Map, Value, json};

use crate::arguments::{Parameter, Rule};
use crate::operation::{Effect, Operation};
use crate::operations;

/// Where it is served, to everybody: it says nothing that the documents don't.
pub(crate) const PATH: &str = "/openapi.json";

/// The answer to whoever asks for it.
pub(crate) fn response() -> Response<Body> {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    let mut response = Response::new(Body::from(TEXT.clone()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json;charset=utf-8"),
    );
    response
}

/// The description as JSON.
pub fn document() -> Value {
    let paths: Map<String, Value> = operations::ALL
        .iter()
        .map(|operation| {
            let path = format!("/#Action={}", operation.name);
            (path, json!({ "post": described(operation) }))
        })
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
                        "Code": { "type": "string", "description": "Stable, for programs." },
                        "Message": { "type": "string", "description": "What is wrong and what to do, for people." },
                        "RequestId": { "type": "string" },
                        "HostId": { "type": "string" },
                        "Recommend": { "type": "string" },
                    },
                },
            },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let parameters = operation
        .parameters
        .iter()
        .filter(|parameter| !matches!(parameter.rule, Rule::NotOffered(_)));
    let mut answer = Shape::default();
    answer.add(
        "RequestId",
        "string",
        "Names this call in the gateway's log.",
    );
    for field in operation.answer {
        answer.add(field.path, field.kind, field.meaning);
    }
    let answers_file = operation.name == "DownloadImage";
    let content = if answers_file {
        json!({ "application/octet-stream": {} })
    } else {
        json!({ "application/json": { "schema": answer.schema() } })
    };
    json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters.map(parameter).collect::<Vec<_>>(),
        "responses": {
            "200": { "description": "Done.", "content": content },
            "default": {
                "description": format!("Not done. Codes of its own: {}.", if operation.refusals.is_empty() { "none".to_owned() } else { operation.refusals.join(", ") }),
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
        "x-ram-action": format!("smc:{}", operation.name),
        "x-changes-something": operation.effect == Effect::Writes,
    })
}

fn parameter(parameter: &Parameter) -> Value {
    let mut schema = schema(parameter.rule);
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

fn schema(rule: Rule) -> Value {
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
        Rule::Boolean => json!({ "type": "boolean" }),
        Rule::Time => {
            json!({ "type": "string", "format": "date-time", "examples": ["2026-11-23T12:00:00Z"] })
        }
        Rule::OneOf(texts) | Rule::OneOfAnyCase(texts) | Rule::ResourceType(texts) => {
            json!({ "type": "string", "enum": texts })
        }
        Rule::ReplicationParameters => {
            json!({ "type": "string", "maxLength": 2048, "contentMediaType": "application/json" })
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
        let wanted = format!("{:#}\n", document());
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
        let document = document();
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
                    ["string", "integer", "number", "boolean"].contains(&field.kind),
                    "{} {}: {}",
                    operation.name,
                    field.path,
                    field.kind
                );
            }
        }
    }
}
