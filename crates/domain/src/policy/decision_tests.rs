//! Tests of decisions, as tables and properties.

use proptest::prelude::*;

use super::*;
use crate::Timestamp;

const SOURCE: &str = "acs:smc:local:1234567890123456:sourceServer/s-1";

fn circumstances() -> Circumstances {
    Circumstances {
        current_time: Some("2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap()),
        is_secure: Some(true),
        source_ip: Some("203.0.113.7".parse().unwrap()),
        has_mfa: Some(false),
        source_vpc: Some("10".to_owned()),
    }
}

fn decided(policies: &[Policy], action: &str, resource: &str) -> Decision {
    let circumstances = circumstances();
    let request = Request {
        action,
        resource,
        circumstances: &circumstances,
    };
    decide(policies, &request)
}

fn policy(statements: &str) -> Policy {
    let text = format!(r#"{{"Version":"1","Statement":[{statements}]}}"#);
    Policy::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn allow_if(condition: &str) -> Policy {
    policy(&format!(
        r#"{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{condition}}}"#
    ))
}

#[test]
fn actions_and_resources_decide() {
    use Decision::{Allow, ExplicitDeny, ImplicitDeny};
    for (statements, action, resource, wanted) in [
        (
            r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#,
            "smc:A",
            SOURCE,
            Allow,
        ),
        (
            r#"{"Effect":"Allow","Action":["smc:B","smc:A"],"Resource":["acs:ecs:*","acs:smc:*"]}"#,
            "smc:A",
            SOURCE,
            Allow,
        ),
        // Case is ignored in actions and in the kind, but not in the id.
        (
            r#"{"Effect":"Allow","Action":"SMC:a","Resource":"acs:smc:*:*:sourceserver/s-1"}"#,
            "smc:A",
            SOURCE,
            Allow,
        ),
        (
            r#"{"Effect":"Allow","Action":"*","Resource":"acs:smc:*:*:sourceServer/S-1"}"#,
            "smc:A",
            SOURCE,
            ImplicitDeny,
        ),
        (
            r#"{"Effect":"Allow","Action":"*","Resource":"acs:smc:*:9999999999999999:*"}"#,
            "smc:A",
            SOURCE,
            ImplicitDeny,
        ),
        (
            r#"{"Effect":"Allow","Action":"ecs:*","Resource":"*"}"#,
            "smc:A",
            SOURCE,
            ImplicitDeny,
        ),
        (
            r#"{"Effect":"Allow","NotAction":"smc:Delete*","Resource":"*"}"#,
            "smc:A",
            SOURCE,
            Allow,
        ),
        (
            r#"{"Effect":"Allow","NotAction":"smc:Delete*","Resource":"*"}"#,
            "smc:DeleteSourceServer",
            SOURCE,
            ImplicitDeny,
        ),
        (
            r#"{"Effect":"Deny","Action":"smc:A","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}"#,
            "smc:A",
            SOURCE,
            ExplicitDeny,
        ),
    ] {
        assert_eq!(
            decided(&[policy(statements)], action, resource),
            wanted,
            "{statements}"
        );
    }
    assert_eq!(decided(&[], "smc:A", SOURCE), ImplicitDeny);
}

/// Each operator with a key, a value that is met and one that is not.
const OPERATORS: [(&str, &str, &str, &str); 21] = [
    ("StringEquals", "acs:SourceVpc", "10", "1"),
    ("StringNotEquals", "acs:SourceVpc", "1", "10"),
    (
        "StringEqualsIgnoreCase",
        "acs:SecureTransport",
        "TRUE",
        "no",
    ),
    (
        "StringNotEqualsIgnoreCase",
        "acs:SecureTransport",
        "no",
        "TRUE",
    ),
    ("StringLike", "acs:CurrentTime", "2026-*", "2025-*"),
    ("StringNotLike", "acs:CurrentTime", "2025-*", "2026-*"),
    ("NumericEquals", "acs:SourceVpc", "10.0", "11"),
    ("NumericNotEquals", "acs:SourceVpc", "11", "10.0"),
    ("NumericLessThan", "acs:SourceVpc", "11", "10"),
    ("NumericLessThanEquals", "acs:SourceVpc", "10", "9"),
    ("NumericGreaterThan", "acs:SourceVpc", "9", "10"),
    ("NumericGreaterThanEquals", "acs:SourceVpc", "10", "11"),
    (
        "DateEquals",
        "acs:CurrentTime",
        "2026-11-23T20:00:00+08:00",
        "2026-11-23T12:00:01Z",
    ),
    (
        "DateNotEquals",
        "acs:CurrentTime",
        "2026-11-23T12:00:01Z",
        "2026-11-23T12:00:00Z",
    ),
    (
        "DateLessThan",
        "acs:CurrentTime",
        "2026-11-23T12:00:01Z",
        "2026-11-23T12:00:00Z",
    ),
    (
        "DateLessThanEquals",
        "acs:CurrentTime",
        "2026-11-23T12:00:00Z",
        "2026-11-23T11:59:59Z",
    ),
    (
        "DateGreaterThan",
        "acs:CurrentTime",
        "2026-11-23T11:59:59Z",
        "2026-11-23T12:00:00Z",
    ),
    (
        "DateGreaterThanEquals",
        "acs:CurrentTime",
        "2026-11-23T12:00:00Z",
        "2026-11-23T12:00:01Z",
    ),
    ("Bool", "acs:MFAPresent", "false", "true"),
    ("IpAddress", "acs:SourceIp", "203.0.113.0/24", "203.0.113.8"),
    (
        "NotIpAddress",
        "acs:SourceIp",
        "203.0.113.8",
        "203.0.113.0/24",
    ),
];

#[test]
fn every_operator_compares_and_knows_what_an_absent_key_means() {
    for (operator, key, met, unmet) in OPERATORS {
        let is_negative = operator.contains("Not");
        let one = |value: &str| allow_if(&format!(r#"{{"{operator}":{{"{key}":"{value}"}}}}"#));
        let says = |policy: &Policy, circumstances: &Circumstances| {
            let request = Request {
                action: "smc:A",
                resource: SOURCE,
                circumstances,
            };
            decide([policy], &request) == Decision::Allow
        };
        let known = circumstances();
        let unknown = Circumstances::default();
        assert!(says(&one(met), &known), "{operator} {met}");
        assert!(!says(&one(unmet), &known), "{operator} {unmet}");
        // An unknown address could be any address.
        let allows = is_negative && key != "acs:SourceIp";
        assert_eq!(says(&one(met), &unknown), allows, "{operator} absent");
        // Values are ORed; a negative operator is met if none applies.
        let both = allow_if(&format!(
            r#"{{"{operator}":{{"{key}":["{unmet}","{met}"]}}}}"#
        ));
        assert_eq!(says(&both, &known), !is_negative, "{operator} ORed");
    }
    let mut named: Vec<&str> = OPERATORS.iter().map(|(name, ..)| *name).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), operator::ALL.len(), "each once");
}

#[test]
fn an_unknown_address_passes_no_condition_on_addresses() {
    let request = Request {
        action: "smc:A",
        resource: SOURCE,
        circumstances: &Circumstances::default(),
    };
    for operator in operator::ALL {
        if !Key::SourceIp.can_be(operator.relation) {
            continue;
        }
        let name = operator.name;
        for value in ["0.0.0.0/0", "10.0.0.0/8", "127.0.0.1"] {
            let condition = format!(r#"{{"{name}":{{"acs:SourceIp":"{value}"}}}}"#);
            let allows = [allow_if(&condition)];
            assert_ne!(decide(&allows, &request), Decision::Allow, "{condition}");
            let denies = policy(&format!(
                r#"{{"Effect":"Allow","Action":"*","Resource":"*"}},
                   {{"Effect":"Deny","Action":"*","Resource":"*","Condition":{condition}}}"#
            ));
            let decision = decide(&[denies], &request);
            assert_eq!(decision, Decision::ExplicitDeny, "{condition}");
        }
    }
}

#[test]
fn keys_and_operators_are_anded() {
    let met = r#""Bool":{"acs:SecureTransport":"true","acs:MFAPresent":"false"}"#;
    let with_key = r#""Bool":{"acs:SecureTransport":"true","acs:MFAPresent":"true"}"#;
    let unmet = r#""IpAddress":{"acs:SourceIp":"10.0.0.0/8"}"#;
    for (condition, wanted) in [
        (format!("{{{met}}}"), Decision::Allow),
        (format!("{{{with_key}}}"), Decision::ImplicitDeny),
        (format!("{{{met},{unmet}}}"), Decision::ImplicitDeny),
    ] {
        assert_eq!(
            decided(&[allow_if(&condition)], "smc:A", SOURCE),
            wanted,
            "{condition}"
        );
    }
}

#[test]
fn what_is_not_known_is_refused_with_its_place() {
    let allow = r#""Effect":"Allow","Action":"*","Resource":"*""#;
    let one = |statement: &str| format!(r#"{{"Version":"1","Statement":[{statement}]}}"#);
    let with = |condition: &str| one(&format!(r#"{{{allow},"Condition":{condition}}}"#));
    for (text, place) in [
        (String::new(), "the policy: it is not JSON"),
        ("[]".to_owned(), "the policy: write an object"),
        ("{}".to_owned(), "Version: "),
        (r#"{"Version":1,"Statement":[]}"#.to_owned(), "Version: "),
        (r#"{"Version":"2","Statement":[]}"#.to_owned(), "Version: "),
        (r#"{"Version":"1"}"#.to_owned(), "Statement: "),
        (
            r#"{"Version":"1","Statement":[]}"#.to_owned(),
            "Statement: give 1 to 50",
        ),
        (
            format!(r#"{{"Version":"1","Id":"x","Statement":[{{{allow}}}]}}"#),
            "the policy: there is no member \"Id\"",
        ),
        (
            format!(r#"{{"Version":"1","Version":"1","Statement":[{{{allow}}}]}}"#),
            "the policy: it is not JSON: the member \"Version\" is there twice",
        ),
        (
            one("1"),
            "Statement[0]: write an object in braces, not a number",
        ),
        (
            one(r#"{"Effect":"allow","Action":"*","Resource":"*"}"#),
            "Statement[0].Effect: ",
        ),
        (
            one(r#"{"Effect":"Allow","Resource":"*"}"#),
            "Statement[0].Action: ",
        ),
        (
            one(r#"{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}"#),
            "Statement[0].Action: ",
        ),
        (
            one(r#"{"Effect":"Allow","Action":"*"}"#),
            "Statement[0].Resource: ",
        ),
        (
            one(r#"{"Effect":"Allow","Action":[],"Resource":"*"}"#),
            "Statement[0].Action: the list is empty",
        ),
        (
            one(r#"{"Effect":"Allow","Action":[1],"Resource":"*"}"#),
            "Statement[0].Action: give a text",
        ),
        (
            one(r#"{"Effect":"Allow","Action":"Describe","Resource":"*"}"#),
            "Statement[0].Action: \"Describe\": ",
        ),
        (
            one(r#"{"Effect":"Allow","Action":"smc: *","Resource":"*"}"#),
            "Statement[0].Action: \"smc: *\" has white space",
        ),
        (
            one(r#"{"Effect":"Allow","Action":"*","Resource":"sourceServer/*"}"#),
            "Statement[0].Resource: ",
        ),
        (
            one(&format!(r#"{{{allow},"Principal":"*"}}"#)),
            "Statement[0]: there is no member \"Principal\"",
        ),
        (with("{}"), "Statement[0].Condition: it is empty"),
        (with("[]"), "Statement[0].Condition: write an object"),
        (
            with(r#"{"StringSounds":{"acs:SourceIp":"a"}}"#),
            "Statement[0].Condition.StringSounds: there is no such operator",
        ),
        (
            with(r#"{"Bool":{}}"#),
            "Statement[0].Condition.Bool: it is empty",
        ),
        (
            with(r#"{"Bool":{"acs:Moon":"true"}}"#),
            "Statement[0].Condition.Bool.acs:Moon: there is no such key",
        ),
        (
            with(r#"{"Bool":{"acs:SecureTransport":true}}"#),
            "Statement[0].Condition.Bool.acs:SecureTransport: give a text",
        ),
        (
            with(r#"{"Bool":{"acs:SecureTransport":"yes"}}"#),
            "Statement[0].Condition.Bool.acs:SecureTransport: \"yes\" is not",
        ),
        (
            with(r#"{"IpAddress":{"acs:SecureTransport":"10.0.0.1"}}"#),
            "Statement[0].Condition.IpAddress.acs:SecureTransport: use Bool",
        ),
        (
            with(r#"{"IpAddress":{"acs:SourceIp":"10.0.0.0/33"}}"#),
            "Statement[0].Condition.IpAddress.acs:SourceIp: ",
        ),
        (
            with(r#"{"IpAddress":{"acs:SourceIp":"::ffff:10.0.0.1"}}"#),
            "Statement[0].Condition.IpAddress.acs:SourceIp: ",
        ),
        (
            with(r#"{"NumericEquals":{"acs:SourceVpc":"inf"}}"#),
            "Statement[0].Condition.NumericEquals.acs:SourceVpc: ",
        ),
        (
            with(r#"{"NumericEquals":{"acs:SourceVpc":"1e999"}}"#),
            "Statement[0].Condition.NumericEquals.acs:SourceVpc: ",
        ),
        (
            with(r#"{"DateEquals":{"acs:CurrentTime":"2027-02-30T00:00:00Z"}}"#),
            "Statement[0].Condition.DateEquals.acs:CurrentTime: ",
        ),
        (
            with(r#"{"DateEquals":{"acs:CurrentTime":"yesterday"}}"#),
            "Statement[0].Condition.DateEquals.acs:CurrentTime: ",
        ),
        (
            " ".repeat(MAX_POLICY_BYTES + 1),
            "the policy: it has more than",
        ),
        (
            one(&format!("{{{allow}}},").repeat(51)).replace(",]", "]"),
            "Statement: give 1 to 50",
        ),
        (
            one(&format!(
                r#"{{"Effect":"Allow","Action":"smc:{}","Resource":"*"}}"#,
                "a".repeat(256)
            )),
            "Statement[0].Action: a text has more than",
        ),
    ] {
        let error = Policy::parse(&text).expect_err(&text).to_string();
        assert!(error.starts_with(place), "{text}\n{error}\n{place}");
    }
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![Just("*".to_owned()), "smc:[AB?*]{1,3}"]
}

fn resource() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        "acs:smc:\\*:\\*:source[Ss]erver/[s1?*-]{1,4}"
    ]
}

fn condition() -> impl Strategy<Value = Option<serde_json::Value>> {
    let one = (0..OPERATORS.len(), 0..OPERATORS.len(), any::<bool>()).prop_map(|(a, b, is_met)| {
        let mut tree = serde_json::Map::new();
        for (operator, key, met, unmet) in [OPERATORS[a], OPERATORS[b]] {
            let value = if is_met { met } else { unmet };
            tree.insert(
                operator.to_owned(),
                serde_json::json!({ key: [value, met] }),
            );
        }
        serde_json::Value::Object(tree)
    });
    prop::option::of(one)
}

fn statement(effect: &'static str) -> impl Strategy<Value = serde_json::Value> {
    (
        any::<bool>(),
        prop::collection::vec(pattern(), 1..3),
        prop::collection::vec(resource(), 1..3),
        condition(),
    )
        .prop_map(move |(is_not, actions, resources, condition)| {
            let name = if is_not { "NotAction" } else { "Action" };
            let mut statement = serde_json::json!({ "Effect": effect, "Resource": resources });
            statement[name] = serde_json::json!(actions);
            if let Some(condition) = condition {
                statement["Condition"] = condition;
            }
            statement
        })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let statement = prop_oneof![statement("Allow"), statement("Deny")];
    prop::collection::vec(statement, 1..4).prop_map(|statements| {
        let tree = serde_json::json!({ "Version": "1", "Statement": statements });
        Policy::parse(&tree.to_string()).expect("it is made of what there is")
    })
}

proptest! {
    #[test]
    fn a_rendered_policy_reads_as_itself(policy in any_policy()) {
        prop_assert_eq!(Policy::parse(&policy.render()), Ok(policy));
    }

    #[test]
    fn an_explicit_deny_wins_in_whatever_order(
        policies in prop::collection::vec(any_policy(), 0..4),
        at in 0_usize..4,
    ) {
        let mut with_deny = policies.clone();
        let deny = policy(r#"{"Effect":"Deny","Action":"smc:A","Resource":"*"}"#);
        with_deny.insert(at.min(policies.len()), deny);
        prop_assert_eq!(decided(&with_deny, "smc:A", SOURCE), Decision::ExplicitDeny);
        let forwards = decided(&policies, "smc:A", SOURCE);
        let backwards: Vec<Policy> = policies.into_iter().rev().collect();
        prop_assert_eq!(decided(&backwards, "smc:A", SOURCE), forwards);
    }

    #[test]
    fn one_more_allow_never_denies(
        policies in prop::collection::vec(any_policy(), 0..4),
        more in statement("Allow"),
    ) {
        let before = decided(&policies, "smc:A", SOURCE);
        let mut with_more = policies;
        with_more.push(policy(&more.to_string()));
        let after = decided(&with_more, "smc:A", SOURCE);
        prop_assert!(after == before || after == Decision::Allow);
        prop_assert_eq!(before == Decision::ExplicitDeny, after == Decision::ExplicitDeny);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        drop(Policy::parse(&text));
    }
}
