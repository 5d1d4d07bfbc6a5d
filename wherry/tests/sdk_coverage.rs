//! Coverage of the API by the cases in `tests/sdk`. Every operation has a case that succeeds, and every code that it
//! can refuse with has one that shows it. Every rule of its parameters has one case just past the edge and one exactly
//! at it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use domain::Timestamp;
use serde_json::Value;

/// Codes with which any call can be refused are those of no operation.
const GATEWAY: &str = "";

/// Codes that the clients can't provoke, each with its operation and the test that shows it instead.
const ELSEWHERE: [(&str, &str, &str); 10] = [
    (GATEWAY, "InternalError", "a defect"),
    (
        GATEWAY,
        "InvalidProtocol.NeedSsl",
        "a gateway that takes HTTPS only: api-gateway/tests/api/tls.rs",
    ),
    (
        GATEWAY,
        "InvalidSecurityToken.Expired",
        "no temporary key lives for less than a quarter of an hour: api-gateway/tests/api/policies.rs",
    ),
    (
        GATEWAY,
        "ServiceUnavailable",
        "a database that is away: api-gateway/tests/api/operating.rs",
    ),
    (
        "CutOverReplicationJob",
        "QuotaExceeded.Bytes",
        "a stored image with its bytes: the check is that of a start",
    ),
    (
        "DeleteSourceServer",
        "SourceServerState.Invalid",
        "a source is Deleting for moments only: api-gateway/tests/api/sources.rs",
    ),
    (
        "DownloadImage",
        "InvalidRange",
        "a header that the clients don't send: api-gateway/tests/api/images.rs",
    ),
    (
        "DownloadImage",
        "UnsupportedOperation",
        "a gateway without an image store: api-gateway/tests/api/images.rs",
    ),
    (
        "ModifySourceServerAttribute",
        "SourceServerState.Invalid",
        "a source is Deleting for moments only: api-gateway/tests/api/sources.rs",
    ),
    (
        "StartReplicationJob",
        "QuotaExceeded.Bytes",
        "a stored image with its bytes: wherry/tests/failures.rs",
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

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// The promises of the API about one operation.
struct Operation {
    name: String,
    /// Codes of its own.
    codes: Vec<String>,
    parameters: Vec<Parameter>,
}

/// A parameter in its flat form.
struct Parameter {
    name: String,
    is_required: bool,
    schema: Value,
}

fn operations() -> Vec<Operation> {
    let document = json("docs/openapi.json");
    let schemas = &document["components"]["schemas"];
    let paths = document["paths"].as_object().expect("it has paths");
    let described = paths.values().map(|path| {
        let operation = &path["post"];
        let refused = text(&operation["responses"]["default"]["description"]);
        let (_, codes) = refused
            .trim_end_matches('.')
            .split_once("Codes of its own: ")
            .expect("it names its codes");
        let codes = codes.split(", ").filter(|code| *code != "none");
        let request = &operation["requestBody"]["content"]["application/json"]["schema"];
        let mut parameters = Vec::new();
        flatten(schemas, request, String::new(), true, &mut parameters);
        Operation {
            name: text(&operation["operationId"]).to_owned(),
            codes: codes.map(str::to_owned).collect(),
            parameters,
        }
    });
    described.collect()
}

/// Adds the flat parameters of a request's schema, as SMC's clients send them.
fn flatten(
    schemas: &Value,
    schema: &Value,
    name: String,
    is_required: bool,
    parameters: &mut Vec<Parameter>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let of = reference.rsplit('/').next().expect("a name");
        return flatten(schemas, &schemas[of], name, is_required, parameters);
    }
    if schema["type"] == "array" {
        return flatten(
            schemas,
            &schema["items"],
            name + ".1",
            is_required,
            parameters,
        );
    }
    let Some(fields) = schema["properties"].as_object() else {
        parameters.push(Parameter {
            name,
            is_required,
            schema: schema.clone(),
        });
        return;
    };
    for (field, below) in fields {
        let is_required = is_required && list(&schema["required"]).contains(&field.as_str().into());
        let dot = if name.is_empty() { "" } else { "." };
        flatten(
            schemas,
            below,
            format!("{name}{dot}{field}"),
            is_required,
            parameters,
        );
    }
}

/// Codes with which any operation can be refused; families such as `Missing…` are not one code.
fn of_gateway() -> BTreeSet<String> {
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

/// A call that a case makes, and the code that it is refused with; `None` if it is done.
struct Call {
    operation: String,
    given: BTreeMap<String, String>,
    code: Option<String>,
}

impl Call {
    /// A parameter without a value is left out, or given as none.
    fn gives(&self, parameter: &str) -> Option<&str> {
        let given = self.given.get(parameter).map(String::as_str);
        given.filter(|value| !value.is_empty())
    }

    /// Returns true if the call was refused because a parameter is missing or breaks a rule.
    fn is_invalid(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        let of_a_rule = ["Missing", "NumberExceed.", "InvalidParameter."];
        of_a_rule.iter().any(|family| code.starts_with(family))
            || code.starts_with("Invalid") && !code.ends_with(".NotFound")
            || code == "InvalidResourceType.NotFound"
    }
}

/// A value of a case as text; texts with `$` as one of their length or kind.
fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text,
        other => return other.to_string(),
    };
    if text.starts_with("$in_") {
        return "2026-11-23T12:00:00Z".to_owned();
    }
    let length = ["$text", "$json", "$token"]
        .iter()
        .find_map(|kind| text.strip_prefix(kind)?.parse().ok());
    length.map_or_else(|| text.clone(), |length| "a".repeat(length))
}

/// The calls of all cases; a case with `edges` stands for many.
fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    for case in list(&json("tests/sdk/cases.json")) {
        let with = case["with"].as_object().expect("parameters");
        let with: BTreeMap<String, String> = with
            .iter()
            .map(|(name, given)| (name.clone(), value(given)))
            .collect();
        let mut add = |given, code: Option<&Value>| {
            calls.push(Call {
                operation: text(&case["call"]).to_owned(),
                given,
                code: code.map(|code| text(code).to_owned()),
            });
        };
        if case.get("edges").is_none() {
            add(with, case.pointer("/refused/1"));
            continue;
        }
        for edge in list(&case["edges"]) {
            let changed = |to: &Value| {
                let mut given = with.clone();
                given.insert(text(&edge[0]).to_owned(), value(to));
                given
            };
            for past in list(&edge[1]) {
                add(changed(past), Some(&edge[2]));
            }
            for at in list(&edge[3]) {
                add(changed(at), case.pointer("/then/1"));
            }
        }
    }
    calls
}

/// The strings that the suites name in their own tests.
fn named() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for suite in [
        "suite.py",
        "suite.mjs",
        "test_core.py",
        "test_tea.py",
        "test_wire.py",
    ] {
        let text = read(&format!("tests/sdk/{suite}")).replace('\'', "\"");
        named.extend(text.split('"').map(str::to_owned));
    }
    named
}

/// One side of an edge of a parameter's rule.
struct Edge {
    what: String,
    is_past: bool,
    holds: Box<dyn Fn(&str) -> bool>,
}

/// The edges of the rules that the API gives for a parameter.
fn edges(schema: &Value) -> Vec<Edge> {
    let mut edges = Vec::new();
    let mut add = |what: String, is_past: bool, holds: Box<dyn Fn(&str) -> bool>| {
        edges.push(Edge {
            what,
            is_past,
            holds,
        });
    };
    let number = |name: &str| schema[name].as_i64();
    let length = |text: &str| i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    for (name, past) in [("minLength", -1), ("maxLength", 1)] {
        // An empty text is as good as none.
        let Some(edge) = number(name).filter(|edge| edge + past > 0) else {
            continue;
        };
        add(
            format!("{name} {edge}"),
            true,
            Box::new(move |text| length(text) == edge + past),
        );
        add(
            format!("{name} {edge}"),
            false,
            Box::new(move |text| length(text) == edge),
        );
    }
    for (name, past) in [("minimum", -1), ("maximum", 1)] {
        let Some(edge) = number(name) else { continue };
        add(
            format!("{name} {edge}"),
            true,
            Box::new(move |text| text.parse() == Ok(edge + past)),
        );
        add(
            format!("{name} {edge}"),
            false,
            Box::new(move |text| text.parse() == Ok(edge)),
        );
    }
    let mut one_of: Vec<String> = list(&schema["enum"]).iter().map(value).collect();
    if schema["type"] == "boolean" {
        one_of = vec!["true".to_owned(), "false".to_owned()];
    }
    for known in one_of.clone() {
        add(
            format!("is {known}"),
            false,
            Box::new(move |text| text == known),
        );
    }
    if !one_of.is_empty() {
        add(
            format!("is one of {one_of:?}"),
            true,
            Box::new(move |text| !one_of.iter().any(|known| known == text)),
        );
    }
    if schema["type"] == "integer" {
        let is_no_number = |text: &str| text.parse::<i64>().is_err();
        add("is a number".to_owned(), true, Box::new(is_no_number));
    }
    if schema["format"] == "date-time" {
        let is_time = |text: &str| text.parse::<Timestamp>().is_ok();
        add(
            "is a time".to_owned(),
            true,
            Box::new(move |text| !is_time(text)),
        );
        add("is a time".to_owned(), false, Box::new(is_time));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        assert_eq!(pattern, "^(?!https?://)", "the edges of a pattern");
        for (begin, is_past) in [("http://", true), ("https://", true), ("http:/a", false)] {
            let holds = Box::new(move |text: &str| text.starts_with(begin));
            add(format!("{pattern}: {begin}"), is_past, holds);
        }
    }
    edges
}

/// The codes of a parameter that is missing, and of one that breaks its rule.
fn codes_of(parameter: &str) -> (String, String) {
    let name = parameter.replace(".1", "");
    let invalid = match name.as_str() {
        "ResourceType" => "InvalidResourceType.NotFound".to_owned(),
        "Tag.Key" => "InvalidParameter.TagKey".to_owned(),
        "Tag.Value" => "InvalidParameter.TagValue".to_owned(),
        _ => format!("Invalid{name}"),
    };
    let missing = match name.as_str() {
        "ResourceType" => "MissingParameter.ResourceType".to_owned(),
        _ => format!("Missing{name}"),
    };
    (missing, invalid)
}

#[test]
fn every_operation_has_a_case_that_is_done() {
    let calls = calls();
    let is_done = |operation: &Operation| {
        let mut of_it = calls.iter().filter(|call| call.operation == operation.name);
        of_it.any(|call| call.code.is_none())
    };
    let operations = operations();
    assert!(operations.len() > 20);
    let without: Vec<&str> = operations
        .iter()
        .filter(|operation| !is_done(operation))
        .map(|operation| operation.name.as_str())
        .collect();
    assert!(without.is_empty(), "without a case: {without:?}");
}

#[test]
fn every_code_of_every_operation_has_a_case() {
    let calls = calls();
    let mut promised = BTreeSet::new();
    for operation in operations() {
        let codes = operation.codes.into_iter();
        promised.extend(codes.map(|code| (operation.name.clone(), code)));
    }
    assert!(promised.len() > 100, "{promised:?}");
    let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
    for call in &calls {
        let Some(code) = &call.code else { continue };
        shown.insert((call.operation.clone(), code.clone()));
        shown.insert((GATEWAY.to_owned(), code.clone()));
    }
    let of_gateway = of_gateway();
    assert!(of_gateway.len() > 20, "{of_gateway:?}");
    promised.extend(
        of_gateway
            .into_iter()
            .map(|code| (GATEWAY.to_owned(), code)),
    );
    shown.extend(named().into_iter().map(|code| (GATEWAY.to_owned(), code)));
    let without: Vec<(&str, &str)> = promised
        .difference(&shown)
        .map(|(operation, code)| (operation.as_str(), code.as_str()))
        .collect();
    let excepted = ELSEWHERE.map(|(operation, code, _)| (operation, code));
    assert_eq!(
        without, excepted,
        "without a case in tests/sdk (left); shown elsewhere (right)"
    );
}

#[test]
fn every_edge_of_every_parameter_has_a_case() {
    let calls = calls();
    let mut edges_in_all = 0;
    let mut without = Vec::new();
    for operation in operations() {
        let of_it = || calls.iter().filter(|call| call.operation == operation.name);
        for parameter in &operation.parameters {
            let name = parameter.name.as_str();
            let (missing, invalid) = codes_of(name);
            let is_refused =
                |call: &Call, code: &String| call.code.as_ref().is_some_and(|found| found == code);
            if parameter.is_required {
                edges_in_all += 1;
                let is_shown =
                    |call: &Call| is_refused(call, &missing) && call.gives(name).is_none();
                if !of_it().any(is_shown) {
                    without.push(format!("{} without {name}", operation.name));
                }
            }
            for edge in edges(&parameter.schema) {
                edges_in_all += 1;
                let is_shown = |call: &Call| {
                    call.gives(name).is_some_and(|given| (edge.holds)(given))
                        && if edge.is_past {
                            is_refused(call, &invalid)
                        } else {
                            !call.is_invalid()
                        }
                };
                if !of_it().any(is_shown) {
                    let side = if edge.is_past { "past" } else { "at" };
                    without.push(format!("{} {name}, {side} {}", operation.name, edge.what));
                }
            }
        }
    }
    assert!(edges_in_all > 400, "{edges_in_all}");
    assert!(without.is_empty(), "without a case: {without:#?}");
}
