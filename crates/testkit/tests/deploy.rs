//! Everything that `deploy/` refers to exists: metrics of dashboards and alerts, in both directions.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use telemetry::Metric;
use testkit::expressions::{self, Expression};

fn deploy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(deploy().join(path)).expect(path);
    serde_norway::from_str(&text).expect(path)
}

fn all_expressions() -> Vec<Expression> {
    let mut all =
        expressions::of_dashboards(&deploy().join("grafana/dashboards")).expect("dashboards");
    all.extend(expressions::of_rules(&yaml("prometheus/alerts.yml")).expect("alerts"));
    all
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_and_labels_that_exist() {
    let promised = expressions::promised();
    for expression in all_expressions() {
        if let Err(error) = expressions::check(&expression, &promised) {
            panic!("{error:#}");
        }
    }
}

#[test]
fn every_metric_has_a_place_where_an_operator_meets_it() {
    let all = all_expressions();
    let homeless: BTreeSet<_> = Metric::ALL
        .iter()
        .map(|metric| metric.spec().name)
        .filter(|name| {
            !all.iter()
                .any(|expression| expression.promql.contains(name))
        })
        .collect();
    assert!(
        homeless.is_empty(),
        "on no dashboard and in no alert: {homeless:?}"
    );
}

#[test]
fn every_alert_is_tested_and_says_how_bad_it_is_and_what_to_do() {
    let rules = yaml("prometheus/alerts.yml");
    let tests = yaml("prometheus/alerts_test.yml").to_string();
    for rule in rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
    {
        let name = rule["alert"].as_str().expect("a name");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            ["page", "ticket"].contains(&severity),
            "{name}: severity {severity:?}"
        );
        assert!(tests.contains(name), "alerts_test.yml does not test {name}");
        for annotation in ["summary", "runbook"] {
            let text = rule["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{name} has no {annotation}");
        }
    }
}

/// A metric that nothing sets would be a flat line that an operator trusts.
#[test]
fn every_metric_is_set_somewhere() {
    let sources = sources();
    let unset: Vec<_> = Metric::ALL
        .iter()
        .filter(|metric| !sources.contains(&format!("Metric::{metric:?}")))
        .map(|metric| metric.spec().name)
        .collect();
    assert!(unset.is_empty(), "nothing sets {unset:?}");
}

/// A setting that no role reads has no effect.
#[test]
fn every_setting_in_deploy_is_one_of_a_role() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().expect("services").values();
    let mut settings: BTreeSet<String> = services
        .map(|service| &service["environment"])
        .chain([&compose["x-environment"]])
        .filter_map(Value::as_object)
        .flat_map(|environment| environment.keys().cloned())
        .collect();
    let text = std::fs::read_to_string(deploy().join("systemd/wherry.env.example"))
        .expect("the units' settings");
    settings.extend(
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.split_once('=')?.0.to_owned())),
    );
    settings.retain(|name| name.starts_with("WHERRY_") || name.starts_with("OTEL_"));
    assert!(settings.len() > 5, "{settings:?}");
    let sources = sources();
    let unknown: Vec<_> = settings
        .iter()
        // A secret comes from a file: `wherry/src/deploy_files/secrets.rs` holds what may.
        .map(|name| name.strip_suffix("_FILE").unwrap_or(name))
        .filter(|name| !sources.contains(&format!("\"{name}\"")))
        .collect();
    assert!(unknown.is_empty(), "no role reads {unknown:?}");
}

/// The sources of everything that runs; telemetry's own list of metrics is not a use of them.
fn sources() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    for path in [
        "agent/src",
        "api-gateway/src",
        "loadtest/src",
        "receiver/src",
        "scheduler/src",
        "wherry/src",
        "worker/src",
        "crates/bus/src",
        "crates/service/src",
        "crates/telemetry/src/init.rs",
        "crates/telemetry/src/process.rs",
    ] {
        read_sources(&root.join(path), &mut sources);
    }
    sources
}

fn read_sources(path: &std::path::Path, sources: &mut String) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder of sources") {
            read_sources(&entry.expect("an entry").path(), sources);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        sources.push_str(&std::fs::read_to_string(path).expect("a source file"));
    }
}
