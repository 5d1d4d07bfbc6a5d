//! What `tests/sdk` shows, held against the reference: every operation done, every code that it can refuse with, every code of the gateway,
//! and every parameter left out, just past its edge and at it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What the clients can't be brought to see in a case, and who shows it instead.
const ELSEWHERE: [(&str, &str); 15] = [
    (
        "CreateReplicationJob without RegionId",
        "the clients add it: tests/sdk/test_wire.py",
    ),
    (
        "CutOverReplicationJob SourceServerState.Invalid",
        "a job between two runs whose source has fallen silent: api-gateway/tests/api/increments.rs",
    ),
    (
        "DeleteImage Image.InvalidStatus",
        "an image is in another state for moments only: api-gateway/tests/api/images.rs",
    ),
    (
        "DeleteSourceServer SourceServerState.Invalid",
        "a source is being deleted for moments only: api-gateway/tests/api/sources.rs",
    ),
    (
        "DownloadImage Image.InvalidStatus",
        "an image is in another state for moments only: api-gateway/tests/api/images.rs",
    ),
    (
        "DownloadImage InvalidFile.NotFound",
        "of an image that a migration has made: tests/sdk/test_core.py",
    ),
    (
        "DownloadImage InvalidRange",
        "a header that the clients don't send: api-gateway/tests/api/images.rs",
    ),
    (
        "DownloadImage UnsupportedOperation",
        "a gateway without an image store",
    ),
    ("InternalError", "a defect"),
    (
        "InvalidProtocol.NeedSsl",
        "a gateway that takes HTTPS only: api-gateway/tests/api/tls.rs",
    ),
    (
        "InvalidSecurityToken.Expired",
        "no temporary key lives for less than a quarter of an hour: api-gateway/tests/api/policies.rs",
    ),
    (
        "ListTagResources with NextToken past its edge",
        "a text that is no token is refused however long it is: api-gateway/tests/api/tags.rs",
    ),
    ("ListTagResources with NextToken at its edge", "as above"),
    (
        "ModifySourceServerAttribute SourceServerState.Invalid",
        "a source is being deleted for moments only: api-gateway/tests/api/sources.rs",
    ),
    (
        "ServiceUnavailable",
        "a database that is away: api-gateway/tests/api/operating.rs",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect(path)
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).expect(path)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Each operation of the reference, by its name.
fn operations() -> BTreeMap<String, Value> {
    let document = json("docs/openapi.json");
    let paths = fields(&document["paths"]);
    let operations = paths.map(|(_, path)| &path["post"]);
    operations
        .map(|operation| {
            let name = text(&operation["operationId"]).to_owned();
            (name, operation.clone())
        })
        .collect()
}

/// The codes of an operation's own.
fn codes(operation: &Value) -> Vec<&str> {
    let refused = text(&operation["responses"]["default"]["description"]);
    let (_, codes) = refused
        .trim_end_matches('.')
        .split_once("Codes of its own: ")
        .expect("it names its codes");
    codes.split(", ").filter(|code| *code != "none").collect()
}

/// Name, schema, and whether it must be there, of each parameter.
fn parameters(operation: &Value) -> impl Iterator<Item = (&str, &Value, bool)> {
    items(&operation["parameters"]).iter().map(|parameter| {
        let is_required = parameter["required"] == true;
        (text(&parameter["name"]), &parameter["schema"], is_required)
    })
}

/// Codes with which any operation can be refused; families such as `Missing…` are not one code.
fn codes_of_gateway() -> BTreeSet<String> {
    read("docs/api.md")
        .lines()
        .skip_while(|line| !line.starts_with("| code | HTTP |"))
        .skip(2)
        .take_while(|line| line.starts_with("| "))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|codes| codes.split(','))
        .map(|code| code.trim().to_owned())
        .filter(|code| !code.contains('…'))
        .collect()
}

/// The calls of a case or of a row of edges.
fn calls(row: &Value) -> Vec<&str> {
    match &row["calls"] {
        Value::Null => vec![text(&row["call"])],
        calls => items(calls).iter().map(text).collect(),
    }
}

/// What the reference promises.
fn promised() -> BTreeSet<String> {
    let mut promised = codes_of_gateway();
    for (name, operation) in operations() {
        for code in codes(&operation) {
            promised.insert(format!("{name} {code}"));
        }
        for (parameter, schema, is_required) in parameters(&operation) {
            if is_required {
                promised.insert(format!("{name} without {parameter}"));
            }
            if has_edge(schema) {
                promised.insert(format!("{name} with {parameter} past its edge"));
                promised.insert(format!("{name} with {parameter} at its edge"));
            }
        }
        promised.insert(name);
    }
    promised
}

/// What the cases, the edges and the suites' own tests show.
fn shown() -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    for case in items(&json("tests/sdk/cases.json")) {
        for call in calls(case) {
            match case["refused"].get(1) {
                Some(code) => {
                    shown.insert(text(code).to_owned());
                    shown.insert(format!("{call} {}", text(code)));
                }
                None => {
                    shown.insert(call.to_owned());
                }
            }
        }
    }
    let operations = operations();
    let edges = json("tests/sdk/edges.json");
    for row in items(&edges) {
        for call in calls(row) {
            let operation = operations.get(call).expect(call);
            let schemas: BTreeMap<&str, &Value> = parameters(operation)
                .map(|(name, schema, _)| (name, schema))
                .collect();
            for (parameter, _) in fields(&row["missing"]) {
                shown.insert(format!("{call} without {parameter}"));
            }
            for (parameter, edge) in fields(&row["edges"]) {
                let schema = schemas.get(parameter.as_str()).expect(parameter);
                if past(schema).iter().all(|value| has(&edge[1], value))
                    && !items(&edge[1]).is_empty()
                {
                    shown.insert(format!("{call} with {parameter} past its edge"));
                }
                if at(schema).iter().all(|value| has(&edge[2], value))
                    && !items(&edge[2]).is_empty()
                {
                    shown.insert(format!("{call} with {parameter} at its edge"));
                }
            }
        }
    }
    for suite in [
        "suite.py",
        "suite.mjs",
        "test_core.py",
        "test_tea.py",
        "test_wire.py",
    ] {
        let text = read(&format!("tests/sdk/{suite}")).replace('\'', "\"");
        shown.extend(text.split('"').map(str::to_owned));
    }
    shown
}

/// Whether there is anything that the parameter may not be.
fn has_edge(schema: &Value) -> bool {
    let rules = [
        "maxLength",
        "minLength",
        "maximum",
        "minimum",
        "enum",
        "format",
    ];
    rules.iter().any(|rule| !schema[rule].is_null()) || schema["type"] == "boolean"
}

/// Whether a list has a value, `$text3` being three letters, and `$json3` three characters of JSON.
fn has(list: &Value, wanted: &Value) -> bool {
    let length = |value: &Value| {
        let text = value.as_str()?;
        let length = text
            .strip_prefix("$text")
            .or_else(|| text.strip_prefix("$json"))?;
        length.parse::<u64>().ok()
    };
    items(list).iter().any(|value| {
        as_sent(value) == as_sent(wanted)
            || length(value).is_some() && length(value) == length(wanted)
    })
}

/// Numbers and truth values are texts on the wire.
fn as_sent(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The values nearest to the edge that are past it. What an enumeration has not, there is no nearest of.
fn past(schema: &Value) -> Vec<Value> {
    let number = |rule: &str| schema[rule].as_i64();
    let mut past: Vec<Value> = Vec::new();
    past.extend(number("maxLength").map(|most| format!("$text{}", most + 1).into()));
    // An empty text is none at all.
    let shortest = number("minLength").filter(|least| *least > 1);
    past.extend(shortest.map(|least| format!("$text{}", least - 1).into()));
    past.extend(number("maximum").map(|most| (most + 1).into()));
    past.extend(number("minimum").map(|least| (least - 1).into()));
    past
}

/// The values that are just allowed.
fn at(schema: &Value) -> Vec<Value> {
    let number = |rule: &str| schema[rule].as_i64();
    let mut at: Vec<Value> = items(&schema["enum"]).to_vec();
    at.extend(number("maxLength").map(|most| format!("$text{most}").into()));
    let shortest = number("minLength").filter(|least| *least > 1);
    at.extend(shortest.map(|least| format!("$text{least}").into()));
    at.extend(number("maximum").map(Value::from));
    at.extend(number("minimum").map(Value::from));
    if schema["type"] == "boolean" {
        at.extend([true.into(), false.into()]);
    }
    at
}

#[test]
fn every_operation_code_and_edge_has_a_case() {
    let (promised, shown) = (promised(), shown());
    assert!(promised.len() > 400, "{promised:?}");
    let without: Vec<&str> = promised
        .iter()
        .map(String::as_str)
        .filter(|name| !shown.contains(*name))
        .collect();
    let mut excepted = ELSEWHERE.map(|(name, _)| name).to_vec();
    excepted.sort_unstable();
    assert_eq!(
        without, excepted,
        "without a case in tests/sdk (left); shown elsewhere (right)"
    );
}
