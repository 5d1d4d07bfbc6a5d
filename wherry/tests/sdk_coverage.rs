//! Every operation of the API, and every code that it can refuse with, has a case in `tests/sdk`. An operation's case is a call that is
//! done; one that is refused shows its code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What the clients can't be brought to see, and who shows it instead.
const ELSEWHERE: [(&str, &str); 7] = [
    (
        "InvalidRange",
        "a header that the clients don't send: api-gateway/tests/api/images.rs",
    ),
    (
        "Image.InvalidStatus",
        "an image is in another state for moments only: api-gateway/tests/api/images.rs",
    ),
    ("UnsupportedOperation", "a gateway without an image store"),
    (
        "InvalidProtocol.NeedSsl",
        "a gateway that takes HTTPS only: api-gateway/tests/api/tls.rs",
    ),
    (
        "InvalidSecurityToken.Expired",
        "no temporary key lives for less than a quarter of an hour: api-gateway/tests/api/policies.rs",
    ),
    ("InternalError", "a defect"),
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

/// Operations, and the codes of each.
fn of_operations() -> BTreeSet<String> {
    let document = json("docs/openapi.json");
    let paths = document["paths"].as_object().expect("it has paths");
    let mut names = BTreeSet::new();
    for path in paths.values() {
        let operation = &path["post"];
        let name = operation["operationId"].as_str().expect("it has a name");
        names.insert(name.to_owned());
        let refused = operation["responses"]["default"]["description"]
            .as_str()
            .expect("it says how it is refused");
        let (_, codes) = refused
            .trim_end_matches('.')
            .split_once("Codes of its own: ")
            .expect("it names its codes");
        let codes = codes.split(", ").filter(|code| *code != "none");
        names.extend(codes.map(str::to_owned));
    }
    names
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

/// What the cases show, and what the suites name in their own tests.
fn shown() -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    for case in json("tests/sdk/cases.json").as_array().expect("a list") {
        let is_refused = case.get("refused").is_some();
        let name = if is_refused {
            &case["refused"][1]
        } else {
            &case["call"]
        };
        shown.insert(name.as_str().expect("a name").to_owned());
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

#[test]
fn every_operation_and_every_code_has_a_case() {
    let mut promised = of_operations();
    let operations = promised.len();
    promised.extend(of_gateway());
    assert!(
        operations > 60 && promised.len() > operations + 20,
        "{promised:?}"
    );
    let shown = shown();
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
