//! Checks that what dashboards and alerts ask of Prometheus exists: every expression parses, and every metric and label in it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, VectorSelector};
use serde_json::Value;

/// Labels that Prometheus adds by itself when it scrapes or evaluates.
const ADDED_BY_PROMETHEUS: [&str; 6] = [
    "job",
    "instance",
    "le",
    "alertname",
    "alertstate",
    "severity",
];

/// Metrics with the names of their labels.
pub type Shown = BTreeMap<String, BTreeSet<String>>;

/// An expression, and where it stands.
#[derive(Debug, Clone)]
pub struct Expression {
    /// Panel or alert.
    pub place: String,
    /// PromQL, with Grafana's variables replaced.
    pub promql: String,
}

/// Every expression of the Grafana dashboards in a folder.
pub fn of_dashboards(folder: &Path) -> anyhow::Result<Vec<Expression>> {
    let mut expressions = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        for panel in dashboard["panels"]
            .as_array()
            .context("a dashboard has panels")?
        {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"]
                    .as_str()
                    .context("a target has an expression")?;
                expressions.push(Expression {
                    place: format!("panel {}", panel["title"]),
                    promql: text.replace("$__rate_interval", "5m"),
                });
            }
        }
    }
    ensure!(
        !expressions.is_empty(),
        "no expression in {}",
        folder.display()
    );
    Ok(expressions)
}

/// Every expression of a file of Prometheus rules, as `promtool check rules --lint=none` would read it; given as YAML that has been made JSON.
pub fn of_rules(rules: &Value) -> anyhow::Result<Vec<Expression>> {
    let mut expressions = Vec::new();
    for group in rules["groups"].as_array().context("rules have groups")? {
        for rule in group["rules"].as_array().context("a group has rules")? {
            expressions.push(Expression {
                place: format!("alert {}", rule["alert"]),
                promql: rule["expr"]
                    .as_str()
                    .context("a rule has an expression")?
                    .to_owned(),
            });
        }
    }
    ensure!(!expressions.is_empty(), "no expression in the rules");
    Ok(expressions)
}

/// What the program's list of metrics promises.
pub fn promised() -> Shown {
    let mut shown = Shown::new();
    for metric in telemetry::Metric::ALL {
        let spec = metric.spec();
        let labels: BTreeSet<String> = spec
            .labels
            .iter()
            .map(|label| label.name.to_owned())
            .collect();
        match spec.kind {
            telemetry::Kind::Histogram(_) => {
                for suffix in ["bucket", "sum", "count"] {
                    shown.insert(format!("{}_{suffix}", spec.name), labels.clone());
                }
            }
            telemetry::Kind::Counter | telemetry::Kind::Gauge => {
                shown.insert(spec.name.to_owned(), labels);
            }
        }
    }
    shown
}

/// What a text in Prometheus' format shows.
pub fn shown_by(text: &str) -> Shown {
    let mut shown = Shown::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (name, rest) = line.split_once(['{', ' ']).unwrap_or((line, ""));
        let labels = shown.entry(name.to_owned()).or_default();
        if line.as_bytes().get(name.len()) == Some(&b'{') {
            let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
            labels.extend(
                inside
                    .split("\",")
                    .filter_map(|pair| Some(pair.split_once('=')?.0.trim().to_owned())),
            );
        }
    }
    shown
}

/// Checks one expression.
///
/// # Errors
/// It does not parse, or asks for a metric or label that is not in `shown`.
pub fn check(expression: &Expression, shown: &Shown) -> anyhow::Result<()> {
    let place = &expression.place;
    let parsed = match parser::parse(&expression.promql) {
        Ok(parsed) => parsed,
        Err(error) => bail!("{place}: {error}: {}", expression.promql),
    };
    let mut names = BTreeSet::new();
    let mut grouped = BTreeSet::new();
    walk(
        &parsed,
        &mut |selector: &VectorSelector| {
            let name = selector.name.clone().unwrap_or_default();
            let labels: Vec<(String, MatchOp)> = selector
                .matchers
                .matchers
                .iter()
                .map(|matcher| (matcher.name.clone(), matcher.op.clone()))
                .collect();
            names.insert((
                name,
                labels
                    .into_iter()
                    .map(|(label, _)| label)
                    .collect::<Vec<_>>(),
            ));
        },
        &mut grouped,
    );
    ensure!(!names.is_empty(), "{place} asks for no metric");
    for (name, labels) in &names {
        if name == "up" {
            continue;
        }
        let known = shown
            .get(name)
            .with_context(|| format!("{place}: nothing shows the metric {name}"))?;
        for label in labels.iter().chain(&grouped) {
            let exists = known.contains(label)
                || ADDED_BY_PROMETHEUS.contains(&label.as_str())
                || names.iter().any(|(other, _)| {
                    shown
                        .get(other)
                        .is_some_and(|labels| labels.contains(label))
                });
            ensure!(exists, "{place}: {name} has no label {label}");
        }
    }
    Ok(())
}

fn walk(
    expression: &Expr,
    found: &mut impl FnMut(&VectorSelector),
    grouped: &mut BTreeSet<String>,
) {
    match expression {
        Expr::Aggregate(aggregate) => {
            if let Some(modifier) = &aggregate.modifier {
                let (parser::LabelModifier::Include(labels)
                | parser::LabelModifier::Exclude(labels)) = modifier;
                grouped.extend(labels.labels.iter().cloned());
            }
            walk(&aggregate.expr, found, grouped);
        }
        Expr::Unary(unary) => walk(&unary.expr, found, grouped),
        Expr::Binary(binary) => {
            walk(&binary.lhs, found, grouped);
            walk(&binary.rhs, found, grouped);
        }
        Expr::Paren(paren) => walk(&paren.expr, found, grouped),
        Expr::Subquery(subquery) => walk(&subquery.expr, found, grouped),
        Expr::VectorSelector(selector) => found(selector),
        Expr::MatrixSelector(matrix) => found(&matrix.vs),
        Expr::Call(call) => {
            for argument in &call.args.args {
                walk(argument, found, grouped);
            }
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(promql: &str) -> anyhow::Result<()> {
        let shown =
            shown_by("wherry_things{state=\"a, b\",kind=\"c\"} 1\nwherry_plain 2\n# HELP x y\n");
        check(
            &Expression {
                place: "test".to_owned(),
                promql: promql.to_owned(),
            },
            &shown,
        )
    }

    #[test]
    fn what_nothing_shows_is_caught() {
        checked("sum by (state) (rate(wherry_things{kind=\"c\"}[5m]))").unwrap();
        checked("max(wherry_plain) > 1").unwrap();
        for broken in [
            "max(wherry_gone)",
            "sum by (colour) (wherry_things)",
            "wherry_things{colour=\"red\"}",
            "sum(rate(wherry_things[5m])",
            "1 + 1",
        ] {
            assert!(checked(broken).is_err(), "{broken}");
        }
    }
}
