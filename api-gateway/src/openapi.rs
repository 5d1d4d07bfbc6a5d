//! The OpenAPI description, made from the types of requests and answers: `docs/openapi.json`, and `GET /openapi.json`.
//!
//! SMC is an RPC API: its clients call `/`, and `Action` names the operation. OpenAPI tells operations apart by their
//! paths only. So each can also be called at a path of its own, `/` and its name, with its request as JSON in the body
//! (`docs/decisions/0023-types-of-the-api.md`).

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use serde_json::{Map, Value, json};
use smc::model;

use crate::error_codes::COMMON;
use crate::operation::{Effect, Operation};
use crate::operations;
use crate::schema::{Of, Schemas};

/// Path at which it is served, to everybody: it has nothing that is not in the documents.
pub(crate) const PATH: &str = "/openapi.json";

/// Returns the response to a request for the description: `text` is that of [`document`].
pub(crate) fn response(text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json;charset=utf-8"),
    );
    response
}

/// Returns the description of a gateway that allows system disks of up to this size in GiB, as JSON.
pub fn document(system_disk_limit_gib: u32) -> Value {
    let paths: Map<String, Value> = operations::all()
        .iter()
        .map(|operation| (path(operation), json!({ "post": described(operation) })))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wherry",
            "version": smc::API_VERSION,
            "summary": "The SMC API, 2019-06-01.",
            "description": "Each operation has a path of its own here, with its request as JSON in the body, signed V3 (ACS3-HMAC-SHA256 in the headers). SMC's own clients call / instead, with GET or POST: x-acs-action or Action names the operation, and parameters are flat, such as Tag.1.Key, in the query and a form body together, signed V3 or V1 (HMAC-SHA1 among the parameters). Format=XML gives XML.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "V3": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "V3": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "ACS3-HMAC-SHA256, with x-acs-action, which is the last part of the path, x-acs-version, x-acs-date, x-acs-signature-nonce and x-acs-content-sha256.",
                },
            },
            "schemas": schemas(system_disk_limit_gib),
        },
    })
}

/// Returns the path at which an operation can be called by itself.
fn path(operation: &Operation) -> String {
    format!("/{}", operation.name)
}

fn described(operation: &Operation) -> Value {
    let content = if operation.answers_file() {
        json!({ "application/octet-stream": { "schema": reference(&operation.answer) } })
    } else {
        in_both_formats(&reference(&operation.answer))
    };
    let own = if operation.refusals.is_empty() {
        "none".to_owned()
    } else {
        operation.refusals.join(", ")
    };
    let request = json!({ "schema": reference(&operation.request) });
    json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "requestBody": { "required": true, "content": { "application/json": request } },
        "responses": {
            "200": { "description": "Done.", "content": content },
            "default": {
                "description": format!("Not done. Codes of its own: {own}."),
                "content": in_both_formats(&reference(&Schemas::of::<model::Error>(Of::Answer))),
            },
        },
        "x-ram-action": format!("smc:{}", operation.name),
        "x-changes-something": operation.effect == Effect::Writes,
    })
}

fn reference(to: &Schemas) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", to.name) })
}

/// Returns one schema for both formats: JSON, and `Format=XML`.
fn in_both_formats(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema }, "text/xml": { "schema": schema } })
}

/// Returns the schemas of all requests and answers.
fn schemas(system_disk_limit_gib: u32) -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |schemas: &Schemas, is_answer: bool| {
        for (name, schema) in &schemas.all {
            let mut schema = json!(schema);
            limit_system_disk(&mut schema, system_disk_limit_gib);
            if is_answer && *name == schemas.name {
                name_call(&mut schema);
            }
            if let Some(other) = all.insert(name.clone(), schema.clone()) {
                assert_eq!(other, schema, "two types of the API are called {name}");
            }
        }
    };
    for operation in operations::all() {
        add(&operation.request, false);
        add(&operation.answer, !operation.answers_file());
    }
    add(&Schemas::of::<model::Error>(Of::Answer), false);
    let codes: Vec<&str> = COMMON.iter().map(|common| common.code).collect();
    all["Error"]["properties"]["Code"]["examples"] = json!(codes);
    all
}

/// Sets the largest system disk to what the gateway allows.
fn limit_system_disk(schema: &mut Value, limit_gib: u32) {
    if schema["format"] == "system-disk-gib" {
        schema["maximum"] = json!(limit_gib);
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        limit_system_disk(property, limit_gib);
    }
}

/// Adds the id of the call, which every answer but a file has.
fn name_call(schema: &mut Value) {
    let field =
        json!({ "type": "string", "description": "Name of this call in the gateway's log." });
    schema["properties"]["RequestId"] = field;
    match &mut schema["required"] {
        Value::Array(required) => required.push(json!("RequestId")),
        none => *none = json!(["RequestId"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default limit of gateways for the system disk, in GiB, which `docs/openapi.json` has.
    const DEFAULT_SYSTEM_DISK_GIB: u32 = 500;

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
        let schemas = &document["components"]["schemas"];
        let resolved = |at: &Value| {
            let name = at["$ref"].as_str().and_then(|to| to.rsplit('/').next());
            schemas[name.expect("a reference")].clone()
        };
        let operation = &document["paths"]["/DescribeReplicationJobs"]["post"];
        let answer =
            resolved(&operation["responses"]["200"]["content"]["application/json"]["schema"]);
        let jobs = resolved(&answer["properties"]["ReplicationJobs"]);
        assert_eq!(jobs["properties"]["ReplicationJob"]["type"], "array");
        let job = resolved(&jobs["properties"]["ReplicationJob"]["items"]);
        assert_eq!(job["properties"]["JobId"]["type"], "string");
        let disks = resolved(&job["properties"]["DataDisks"]);
        let disk = resolved(&disks["properties"]["DataDisk"]["items"]);
        assert_eq!(disk["properties"]["Size"]["type"], "integer");
    }

    #[test]
    fn what_may_lack_is_not_required_and_nothing_is_null() {
        let document = document(DEFAULT_SYSTEM_DISK_GIB);
        let job = &document["components"]["schemas"]["ReplicationJob"];
        let required = job["required"].as_array().expect("some fields are sure");
        assert!(required.contains(&json!("JobId")) && !required.contains(&json!("ImageId")));
        assert!(!document.to_string().contains("null"));
    }

    #[test]
    fn the_limit_of_the_gateway_is_that_of_the_schema() {
        let document = document(2000);
        let request = &document["components"]["schemas"]["CreateReplicationJob"];
        assert_eq!(request["properties"]["SystemDiskSize"]["maximum"], 2000);
    }
}
