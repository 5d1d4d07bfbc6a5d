//! A policy's text: `{"Version":"1","Statement":[{"Effect":…,"Action":…,"Resource":…,"Condition":…}]}`.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value as Rendered, json};

use super::condition::{Condition, Key};
use super::json::Json;
use super::operator::{self, Value};

/// Longest text of a policy.
pub const MAX_POLICY_BYTES: usize = 6 * 1024;

/// Statements that a policy may have.
const MAX_STATEMENTS: usize = 50;

/// Longest action or resource, in bytes; it bounds what a comparison costs.
const MAX_PATTERN_BYTES: usize = 256;

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub(super) statements: Vec<Statement>,
}

/// The effect of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The statement allows.
    Allow,
    /// The statement denies, whatever others allow.
    Deny,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    pub(super) actions: Actions,
    pub(super) resources: Vec<String>,
    /// Conditions that must all be met.
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Actions {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

/// The text is not a policy: the position of the fault, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct InvalidPolicy {
    at: String,
    what: String,
}

fn invalid(at: impl Into<String>, what: impl Into<String>) -> InvalidPolicy {
    InvalidPolicy {
        at: at.into(),
        what: what.into(),
    }
}

impl Policy {
    /// Parses a policy.
    ///
    /// # Errors
    /// The first part that this version does not know or can't read.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(invalid(
                "the policy",
                format!("it has more than {MAX_POLICY_BYTES} bytes; split it into several"),
            ));
        }
        let json: Json = serde_json::from_str(text)
            .map_err(|error| invalid("the policy", format!("it is not JSON: {error}")))?;
        let mut members = Members::of("the policy", json)?;
        match members.take("Version") {
            Some(Json::Text(version)) if version == "1" => {}
            _ => return Err(invalid("Version", "write \"Version\": \"1\"")),
        }
        let Some(Json::List(statements)) = members.take("Statement") else {
            return Err(invalid("Statement", "give a list of statements"));
        };
        members.end("Version and Statement")?;
        if statements.is_empty() || statements.len() > MAX_STATEMENTS {
            return Err(invalid(
                "Statement",
                format!("give 1 to {MAX_STATEMENTS} statements"),
            ));
        }
        let statements = statements
            .into_iter()
            .enumerate()
            .map(|(index, json)| statement(&format!("Statement[{index}]"), json))
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// Returns the policy as a text that parses to the same policy.
    pub fn render(&self) -> String {
        let statements: Vec<Rendered> = self.statements.iter().map(Statement::render).collect();
        json!({ "Version": "1", "Statement": statements }).to_string()
    }
}

impl FromStr for Policy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        Self::parse(text)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

fn statement(at: &str, json: Json) -> Result<Statement, InvalidPolicy> {
    let mut members = Members::of(at, json)?;
    let effect = match members.take("Effect") {
        Some(Json::Text(effect)) if effect == "Allow" => Effect::Allow,
        Some(Json::Text(effect)) if effect == "Deny" => Effect::Deny,
        _ => {
            return Err(invalid(
                format!("{at}.Effect"),
                "write \"Allow\" or \"Deny\"",
            ));
        }
    };
    let actions = match (members.take("Action"), members.take("NotAction")) {
        (Some(json), None) => Actions::Only(patterns(&format!("{at}.Action"), json, is_action)?),
        (None, Some(json)) => {
            Actions::AllBut(patterns(&format!("{at}.NotAction"), json, is_action)?)
        }
        _ => {
            return Err(invalid(
                format!("{at}.Action"),
                "give either Action or NotAction",
            ));
        }
    };
    let Some(resources) = members.take("Resource") else {
        return Err(invalid(
            format!("{at}.Resource"),
            "give the resources, \"*\" for all",
        ));
    };
    let resources = patterns(&format!("{at}.Resource"), resources, is_resource)?;
    let conditions = match members.take("Condition") {
        Some(json) => conditions(&format!("{at}.Condition"), json)?,
        None => Vec::new(),
    };
    members.end("Effect, Action, NotAction, Resource and Condition")?;
    Ok(Statement {
        effect,
        actions,
        resources,
        conditions,
    })
}

fn is_action(text: &str) -> Result<(), &'static str> {
    if text == "*"
        || text
            .split_once(':')
            .is_some_and(|(service, action)| !service.is_empty() && !action.is_empty())
    {
        return Ok(());
    }
    Err("an action is \"*\" or has its service before it, such as \"smc:Describe*\"")
}

fn is_resource(text: &str) -> Result<(), &'static str> {
    if text == "*"
        || text
            .strip_prefix("acs:")
            .is_some_and(|rest| !rest.is_empty())
    {
        return Ok(());
    }
    Err("a resource is \"*\" or such as \"acs:smc:*:*:sourceServer/*\"")
}

fn patterns(
    at: &str,
    json: Json,
    check: fn(&str) -> Result<(), &'static str>,
) -> Result<Vec<String>, InvalidPolicy> {
    let texts = texts(at, json)?;
    for text in &texts {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(invalid(
                at,
                format!("a text has more than {MAX_PATTERN_BYTES} bytes; shorten it"),
            ));
        }
        if text
            .chars()
            .any(|character| character.is_whitespace() || character.is_control())
        {
            return Err(invalid(at, format!("{text:?} has white space; remove it")));
        }
        check(text).map_err(|what| invalid(at, format!("{text:?}: {what}")))?;
    }
    Ok(texts)
}

/// Returns the texts of `json`, which is a text or a list of at least one.
fn texts(at: &str, json: Json) -> Result<Vec<String>, InvalidPolicy> {
    let wrong = |found: &Json| {
        invalid(
            at,
            format!("give a text or a list of texts, not {}", found.kind()),
        )
    };
    match json {
        Json::Text(text) => Ok(vec![text]),
        Json::List(items) if items.is_empty() => Err(invalid(at, "the list is empty")),
        Json::List(items) => items
            .into_iter()
            .map(|item| match item {
                Json::Text(text) => Ok(text),
                other => Err(wrong(&other)),
            })
            .collect(),
        other => Err(wrong(&other)),
    }
}

fn conditions(at: &str, json: Json) -> Result<Vec<Condition>, InvalidPolicy> {
    let mut conditions = Vec::new();
    for (name, keys) in Members::of(at, json)?.all()? {
        let at = format!("{at}.{name}");
        let Some(operator) = operator::ALL.iter().find(|operator| operator.name == name) else {
            let known: Vec<&str> = operator::ALL.iter().map(|operator| operator.name).collect();
            return Err(invalid(
                at,
                format!("there is no such operator; there are {}", known.join(", ")),
            ));
        };
        for (name, values) in Members::of(&at, keys)?.all()? {
            let at = format!("{at}.{name}");
            let Some(key) = Key::ALL.into_iter().find(|key| key.as_str() == name) else {
                let known = Key::ALL.map(Key::as_str).join(", ");
                return Err(invalid(
                    at,
                    format!("there is no such key; there are {known}"),
                ));
            };
            if !key.can_be(operator.relation) {
                return Err(invalid(at, format!("use {}", key.operators())));
            }
            let values = texts(&at, values)?
                .iter()
                .map(|text| {
                    Value::read(operator.relation, text)
                        .map_err(|wanted| invalid(&at, format!("{text:?} is not {wanted}")))
                })
                .collect::<Result<_, _>>()?;
            conditions.push(Condition {
                operator: *operator,
                key,
                values,
            });
        }
    }
    // All conditions must be met, so their order means nothing. Sorted, equal policies are equal.
    conditions.sort_by_key(|condition: &Condition| (condition.operator.name, condition.key));
    Ok(conditions)
}

/// The members of an object that are not taken yet.
struct Members {
    at: String,
    left: Vec<(String, Json)>,
}

impl Members {
    fn of(at: &str, json: Json) -> Result<Self, InvalidPolicy> {
        match json {
            Json::Object(left) => Ok(Self {
                at: at.to_owned(),
                left,
            }),
            other => Err(invalid(
                at,
                format!("write an object in braces, not {}", other.kind()),
            )),
        }
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let index = self.left.iter().position(|(known, _)| known == name)?;
        Some(self.left.swap_remove(index).1)
    }

    /// Returns all members. At least one is required.
    fn all(self) -> Result<Vec<(String, Json)>, InvalidPolicy> {
        if self.left.is_empty() {
            return Err(invalid(self.at, "it is empty; leave it out"));
        }
        Ok(self.left)
    }

    fn end(self, known: &str) -> Result<(), InvalidPolicy> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(
                self.at,
                format!("there is no member {name:?}; there are {known}"),
            )),
        }
    }
}

impl Statement {
    fn render(&self) -> Rendered {
        let mut members = Map::new();
        let effect = match self.effect {
            Effect::Allow => "Allow",
            Effect::Deny => "Deny",
        };
        members.insert("Effect".to_owned(), Rendered::from(effect));
        let (name, patterns) = match &self.actions {
            Actions::Only(patterns) => ("Action", patterns),
            Actions::AllBut(patterns) => ("NotAction", patterns),
        };
        members.insert(name.to_owned(), json!(patterns));
        members.insert("Resource".to_owned(), json!(self.resources));
        if !self.conditions.is_empty() {
            let mut operators = Map::new();
            for condition in &self.conditions {
                let values: Vec<&str> = condition
                    .values
                    .iter()
                    .map(|value| value.text.as_str())
                    .collect();
                let keys = operators
                    .entry(condition.operator.name)
                    .or_insert_with(|| Rendered::Object(Map::new()));
                if let Rendered::Object(keys) = keys {
                    keys.insert(condition.key.as_str().to_owned(), json!(values));
                }
            }
            members.insert("Condition".to_owned(), Rendered::Object(operators));
        }
        Rendered::Object(members)
    }
}
