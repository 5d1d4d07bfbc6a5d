//! Checks that everything that dashboards and alerts query in Prometheus exists: every expression parses, and every
//! metric and label in it is exported.

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

/// Labels with the values that were seen. None were, where only names are known.
pub type Labels = BTreeMap<String, BTreeSet<String>>;

/// Metrics with their labels.
pub type Shown = BTreeMap<String, Labels>;

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

/// Every expression of a file of Prometheus rules, as `promtool check rules --lint=none` would read it. `rules` is the
/// YAML converted to JSON.
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

/// Metrics and labels that the program's list of metrics promises.
pub fn promised() -> Shown {
    let mut shown = Shown::new();
    for metric in telemetry::Metric::ALL {
        let spec = metric.spec();
        let labels: Labels = spec
            .labels
            .iter()
            .map(|label| (label.name.to_owned(), BTreeSet::new()))
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

/// Metrics and labels in a text in Prometheus' format.
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
            let pairs = inside.split("\",").filter_map(|pair| pair.split_once('='));
            for (label, value) in pairs {
                let values = labels.entry(label.trim().to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    shown
}

/// Checks one expression.
///
/// # Errors
/// It does not parse, or it queries a metric, a label or a label's value that is not in `shown`.
pub fn check(expression: &Expression, shown: &Shown) -> anyhow::Result<()> {
    let place = &expression.place;
    let parsed = match parser::parse(&expression.promql) {
        Ok(parsed) => parsed,
        Err(error) => bail!("{place}: {error}: {}", expression.promql),
    };
    let mut selectors = Vec::new();
    let mut grouped = BTreeSet::new();
    walk(
        &parsed,
        &mut |selector: &VectorSelector| selectors.push(selector.clone()),
        &mut grouped,
    );
    ensure!(!selectors.is_empty(), "{place} asks for no metric");
    let name_of = |selector: &VectorSelector| selector.name.clone().unwrap_or_default();
    for selector in selectors
        .iter()
        .filter(|selector| name_of(selector) != "up")
    {
        let name = name_of(selector);
        let known = shown
            .get(&name)
            .with_context(|| format!("{place}: nothing shows the metric {name}"))?;
        let has_label =
            |label: &str| known.contains_key(label) || ADDED_BY_PROMETHEUS.contains(&label);
        for label in &grouped {
            let exists = has_label(label)
                || selectors.iter().any(|other| {
                    shown
                        .get(&name_of(other))
                        .is_some_and(|labels| labels.contains_key(label))
                });
            ensure!(exists, "{place}: {name} has no label {label}");
        }
        for matcher in &selector.matchers.matchers {
            let label = &matcher.name;
            ensure!(has_label(label), "{place}: {name} has no label {label}");
            let wanted: Vec<&str> = match matcher.op {
                MatchOp::Equal => vec![&matcher.value],
                MatchOp::Re(_) => matcher.value.split('|').collect(),
                MatchOp::NotEqual | MatchOp::NotRe(_) => Vec::new(),
            };
            if let Some(seen) = known.get(label).filter(|seen| !seen.is_empty())
                && let Some(value) = wanted.iter().find(|value| !seen.contains(**value))
            {
                bail!("{place}: {label} of {name} is never {value}, but {seen:?}");
            }
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
        checked("wherry_things{state=~\"a, b\",kind!=\"other\"}").unwrap();
        for broken in [
            "max(wherry_gone)",
            "sum by (colour) (wherry_things)",
            "wherry_things{colour=\"red\"}",
            "wherry_things{kind=\"d\"}",
            "wherry_things{kind=~\"c|d\"}",
            "max(wherry_plain{kind=\"c\"})",
            "sum(rate(wherry_things[5m])",
            "1 + 1",
        ] {
            assert!(checked(broken).is_err(), "{broken}");
        }
    }
}
