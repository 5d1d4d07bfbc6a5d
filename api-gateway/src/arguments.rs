//! Parameters of operations: their rules as data, and the checked values that handlers get.
//!
//! The table of an operation says which parameters it has. Whatever a call carries beyond them is ignored (SDKs send `OwnerId` and
//! `RegionId` with everything); what the API knows but Wherry does not offer is in the table as well, and refused with a sentence.

use std::collections::BTreeMap;

use domain::Timestamp;
use domain::name::{Name, is_source_description, is_workgroup_description, is_workgroup_name};
use domain::parameters::ReplicationParameters;
use domain::tag::{is_key, is_value};
use smc::Pairs;

use crate::Refusal;

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Any text of at most this many characters.
    Text(usize),
    /// 2–128 letters, digits, `:`, `_`, `-`, beginning with a letter.
    Name,
    /// At most 256 characters, also none, not beginning with `http://` or `https://`.
    SourceDescription,
    /// At most this many ASCII characters.
    Token(usize),
    /// A whole number between two bounds.
    Integer(i64, i64),
    /// `true` or `false` in any case.
    Boolean,
    /// `YYYY-MM-DDThh:mm:ssZ`.
    Time,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts in any case; the table's spelling is what the handler gets.
    OneOfAnyCase(&'static [&'static str]),
    /// A JSON object text, as `domain::parameters` reads it.
    ReplicationParameters,
    /// The name of a workgroup.
    WorkgroupName,
    /// The description of a workgroup.
    WorkgroupDescription,
    /// One of these kinds of resources in any case; the table's spelling is what the handler gets. Tag operations have codes of their own.
    ResourceType(&'static [&'static str]),
    /// The key of a tag.
    TagKey,
    /// The value of a tag.
    TagValue,
    /// Only this value, which is what leaving it out means; others are not offered. The sentence says so.
    Only(&'static str, &'static str),
    /// Not offered, nor anything below it. The sentence says so.
    NotOffered(&'static str),
}

/// One parameter of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name; `SourceId.N` and `DataDisk.N.Size` for lists.
    pub name: &'static str,
    /// What its value must be.
    pub rule: Rule,
    /// Whether it must be given.
    pub is_required: bool,
    /// For a list, the largest N.
    pub most: u32,
    /// What it means.
    pub meaning: &'static str,
}

impl Parameter {
    /// A parameter that must be given.
    pub const fn required(name: &'static str, rule: Rule, meaning: &'static str) -> Self {
        Self {
            name,
            rule,
            is_required: true,
            most: 0,
            meaning,
        }
    }

    /// A parameter that may be given.
    pub const fn optional(name: &'static str, rule: Rule, meaning: &'static str) -> Self {
        Self {
            is_required: false,
            ..Self::required(name, rule, meaning)
        }
    }

    /// A list with N from 1 to `most`.
    pub const fn list(name: &'static str, most: u32, rule: Rule, meaning: &'static str) -> Self {
        Self {
            most,
            ..Self::optional(name, rule, meaning)
        }
    }

    /// A parameter of the API that Wherry does not offer, with everything below its name.
    pub const fn not_offered(name: &'static str, sentence: &'static str) -> Self {
        Self::optional(name, Rule::NotOffered(sentence), "not offered")
    }

    /// The name in error codes: without the `.N`.
    pub fn code_name(&self) -> String {
        self.name.replace(".N", "")
    }

    fn missing(&self) -> Refusal {
        if let Rule::ResourceType(_) = self.rule {
            Refusal::new(
                "MissingParameter.ResourceType",
                "You must specify ResourceType.",
            )
        } else {
            Refusal::missing(&self.code_name())
        }
    }

    /// Whether `name` of a call is this parameter, be it at an N that is too large.
    pub fn is_named(&self, name: &str) -> bool {
        matches!(self.fit(name), Fit::At(_) | Fit::OutOfRange)
    }

    /// How `name` of a call fits this parameter.
    fn fit(&self, name: &str) -> Fit {
        if let Rule::NotOffered(_) = self.rule {
            return if is_at_or_below(name, self.name) {
                Fit::At(0)
            } else {
                Fit::Not
            };
        }
        let Some((before, after)) = self.name.split_once(".N") else {
            return if name == self.name {
                Fit::At(0)
            } else {
                Fit::Not
            };
        };
        let number = name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(after));
        match number {
            Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                match number.parse() {
                    Ok(number) if (1..=self.most).contains(&number) => Fit::At(number),
                    _ => Fit::OutOfRange,
                }
            }
            _ if is_at_or_below(name, before) => Fit::Resembles,
            _ => Fit::Not,
        }
    }
}

/// Whether `name` begins with the parts of `pattern`, in which `N` stands for any part.
fn is_at_or_below(name: &str, pattern: &str) -> bool {
    let mut parts = name.split('.');
    pattern.split('.').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| wanted == "N" || wanted == part)
    })
}

enum Fit {
    /// It is this parameter, at this N (0 if it is no list).
    At(u32),
    /// It is this parameter at an N that it does not have.
    OutOfRange,
    /// It begins like this list but is no element of it, such as `SourceId` or `DataDisk.1.Speed`.
    Resembles,
    /// It is something else.
    Not,
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Name(Name),
    Integer(i64),
    Boolean(bool),
    Time(Timestamp),
}

/// The checked parameters of one call.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    values: BTreeMap<&'static str, BTreeMap<u32, Value>>,
    given: Pairs,
}

impl Arguments {
    /// Checks the parameters of a call against the table of its operation.
    ///
    /// # Errors
    /// The first parameter, in the order of the table, that is missing, given twice or breaks its rule.
    pub fn parse(table: &'static [Parameter], pairs: &Pairs) -> Result<Self, Refusal> {
        let mut arguments = Self::default();
        check_names(table, pairs)?;
        for parameter in table {
            for (name, text) in pairs {
                let Fit::At(number) = parameter.fit(name) else {
                    continue;
                };
                let Some(value) = check(parameter, text)? else {
                    continue;
                };
                arguments.given.push((name.clone(), text.clone()));
                let slots = arguments.values.entry(parameter.name).or_default();
                if slots.insert(number, value).is_some() {
                    return Err(Refusal::invalid(
                        &parameter.code_name(),
                        "It is given twice.",
                    ));
                }
            }
            if parameter.is_required && !arguments.values.contains_key(parameter.name) {
                return Err(parameter.missing());
            }
        }
        Ok(arguments)
    }

    /// A text, or one of several texts.
    pub fn text(&self, name: &'static str) -> Option<&str> {
        match self.single(name)? {
            Value::Text(text) => Some(text),
            Value::Name(name) => Some(name.as_str()),
            other => undeclared(name, other),
        }
    }

    /// A text that the table requires.
    pub fn required_text(&self, name: &'static str) -> &str {
        self.text(name)
            .expect("the operation's table requires this parameter")
    }

    /// A name.
    pub fn name(&self, name: &'static str) -> Option<&Name> {
        match self.single(name)? {
            Value::Name(name) => Some(name),
            other => undeclared(name, other),
        }
    }

    /// A whole number.
    pub fn integer(&self, name: &'static str) -> Option<i64> {
        match self.single(name)? {
            Value::Integer(number) => Some(*number),
            other => undeclared(name, other),
        }
    }

    /// A truth value.
    pub fn boolean(&self, name: &'static str) -> Option<bool> {
        match self.single(name)? {
            Value::Boolean(boolean) => Some(*boolean),
            other => undeclared(name, other),
        }
    }

    /// A time.
    pub fn time(&self, name: &'static str) -> Option<Timestamp> {
        match self.single(name)? {
            Value::Time(time) => Some(*time),
            other => undeclared(name, other),
        }
    }

    /// The texts of a list by N; `None` if none was given.
    pub fn texts(&self, name: &'static str) -> Option<Vec<String>> {
        let texts = self.values.get(name)?.values().map(|value| match value {
            Value::Text(text) => text.clone(),
            other => undeclared(name, other),
        });
        Some(texts.collect())
    }

    /// The texts of a list, with their N.
    pub fn numbered_texts(&self, name: &'static str) -> BTreeMap<u32, String> {
        let values = self.values.get(name).into_iter().flatten();
        values
            .map(|(&number, value)| match value {
                Value::Text(text) => (number, text.clone()),
                other => undeclared(name, other),
            })
            .collect()
    }

    /// The numbers of a list, with their N.
    pub fn integers(&self, name: &'static str) -> BTreeMap<u32, i64> {
        let values = self.values.get(name).into_iter().flatten();
        values
            .map(|(&number, value)| match value {
                Value::Integer(integer) => (number, *integer),
                other => undeclared(name, other),
            })
            .collect()
    }

    /// SHA-256 of everything that was given but `ClientToken`: whether two calls ask for the same.
    pub fn digest(&self) -> Vec<u8> {
        let asked: Vec<&(String, String)> = self
            .given
            .iter()
            .filter(|(name, _)| name != "ClientToken")
            .collect();
        let pairs: Vec<(&str, &str)> = asked
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let text = smc::pairs::canonical(&pairs);
        ring::digest::digest(&ring::digest::SHA256, text.as_bytes())
            .as_ref()
            .to_vec()
    }

    fn single(&self, name: &'static str) -> Option<&Value> {
        self.values.get(name)?.get(&0)
    }
}

fn undeclared(name: &str, value: &Value) -> ! {
    unreachable!(
        "the operation's table gives {name} another rule than its handler reads: {value:?}"
    )
}

/// Refuses names that are almost elements of a list: ignoring them would ignore what the caller asks for.
fn check_names(table: &[Parameter], pairs: &Pairs) -> Result<(), Refusal> {
    for (name, _) in pairs {
        let mut resembles = None;
        let mut is_known = false;
        for parameter in table {
            match parameter.fit(name) {
                Fit::At(_) => is_known = true,
                Fit::OutOfRange => {
                    return Err(Refusal::invalid(
                        &parameter.code_name(),
                        format!("{name}: N goes from 1 to {}.", parameter.most),
                    ));
                }
                Fit::Resembles => resembles = Some(parameter),
                Fit::Not => {}
            }
        }
        if let (false, Some(parameter)) = (is_known, resembles) {
            let list = parameter.name.split('.').next().unwrap_or_default();
            return Err(Refusal::invalid(
                list,
                format!("{name} is not of the form {}.", parameter.name),
            ));
        }
    }
    Ok(())
}

/// Checks one value. An empty text is as good as none, except where a rule allows it.
fn check(parameter: &Parameter, text: &str) -> Result<Option<Value>, Refusal> {
    if text.is_empty() && !matches!(parameter.rule, Rule::SourceDescription) {
        return Ok(None);
    }
    let invalid = |because: String| Refusal::invalid(&parameter.code_name(), because);
    let value = match parameter.rule {
        Rule::Text(most) => {
            if text.chars().count() > most {
                return Err(invalid(format!("It is longer than {most} characters.")));
            }
            Value::Text(text.to_owned())
        }
        Rule::Name => {
            Value::Name(Name::parse(text).map_err(|error| invalid(format!("Note that {error}.")))?)
        }
        Rule::SourceDescription => {
            if !is_source_description(text) {
                return Err(invalid(
                    "It has at most 256 characters and does not begin with http:// or https://."
                        .to_owned(),
                ));
            }
            Value::Text(text.to_owned())
        }
        Rule::Token(most) => {
            if text.len() > most || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(invalid(format!("It has at most {most} ASCII characters.")));
            }
            Value::Text(text.to_owned())
        }
        Rule::Integer(least, most) => Value::Integer(
            text.parse()
                .ok()
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| invalid(format!("It is a whole number from {least} to {most}.")))?,
        ),
        Rule::Boolean => Value::Boolean(
            parse_boolean(text).ok_or_else(|| invalid("It is true or false.".to_owned()))?,
        ),
        Rule::Time => Value::Time(text.parse().map_err(|_| {
            invalid("It is a UTC time of the form YYYY-MM-DDThh:mm:ssZ.".to_owned())
        })?),
        Rule::OneOf(texts) => texts
            .contains(&text)
            .then(|| Value::Text(text.to_owned()))
            .ok_or_else(|| invalid(format!("It is one of {}.", texts.join(", "))))?,
        Rule::OneOfAnyCase(texts) => texts
            .iter()
            .find(|known| known.eq_ignore_ascii_case(text))
            .map(|known| Value::Text((*known).to_owned()))
            .ok_or_else(|| invalid(format!("It is one of {}.", texts.join(", "))))?,
        Rule::ReplicationParameters => {
            ReplicationParameters::parse(text).map_err(|error| invalid(format!("{error}.")))?;
            Value::Text(text.to_owned())
        }
        Rule::ResourceType(texts) => texts
            .iter()
            .find(|known| known.eq_ignore_ascii_case(text))
            .map(|known| Value::Text((*known).to_owned()))
            .ok_or_else(|| {
                Refusal::new(
                    "InvalidResourceType.NotFound",
                    "The specified ResourceType does not exist.",
                )
            })?,
        Rule::WorkgroupName => Value::Text(
            is_workgroup_name(text)
                .then(|| text.to_owned())
                .ok_or_else(|| {
                    invalid("It has 2 to 64 letters, digits, '.', ':', '_' or '-', and begins with a letter.".to_owned())
                })?,
        ),
        Rule::WorkgroupDescription => Value::Text(
            is_workgroup_description(text)
                .then(|| text.to_owned())
                .ok_or_else(|| {
                    invalid("It has 2 to 256 characters and does not begin with http:// or https://.".to_owned())
                })?,
        ),
        Rule::TagKey | Rule::TagValue => Value::Text(check_tag(parameter.rule, text)?),
        Rule::Only(value, sentence) => {
            if !text.eq_ignore_ascii_case(value) {
                return Err(invalid(sentence.to_owned()));
            }
            return Ok(None);
        }
        Rule::NotOffered(sentence) => return Err(invalid(sentence.to_owned())),
    };
    Ok(Some(value))
}

/// Tags have codes of their own.
fn check_tag(rule: Rule, text: &str) -> Result<String, Refusal> {
    let (is_allowed, code, because) = if matches!(rule, Rule::TagKey) {
        (
            is_key(text),
            "InvalidParameter.TagKey",
            "The specified tag key is not valid. It has at most 128 characters, does not begin with aliyun or acs:, and has no http:// or https://.",
        )
    } else {
        (
            is_value(text),
            "InvalidParameter.TagValue",
            "The specified tag value is not valid. It has at most 128 characters.",
        )
    };
    if is_allowed {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(code, because))
    }
}

/// Python writes `True`, everybody else `true`.
fn parse_boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &[Parameter] = &[
        Parameter::required("JobId", Rule::Text(64), ""),
        Parameter::optional("Name", Rule::Name, ""),
        Parameter::optional("Description", Rule::SourceDescription, ""),
        Parameter::optional("Force", Rule::Boolean, ""),
        Parameter::optional("Size", Rule::Integer(20, 500), ""),
        Parameter::optional("At", Rule::Time, ""),
        Parameter::optional("Type", Rule::OneOfAnyCase(&["Image"]), ""),
        Parameter::optional("RunOnce", Rule::Only("true", "Only true."), ""),
        Parameter::list("SourceId.N", 3, Rule::Text(64), ""),
        Parameter::list("DataDisk.N.Index", 16, Rule::Integer(1, 16), ""),
        Parameter::not_offered("DataDisk.N.Part", ""),
        Parameter::not_offered("Disks", "No LVM."),
    ];

    fn parse(pairs: &[(&str, &str)]) -> Result<Arguments, Refusal> {
        let pairs: Pairs = [("JobId", "j-1")]
            .iter()
            .chain(pairs)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Arguments::parse(TABLE, &pairs)
    }

    fn code(pairs: &[(&str, &str)]) -> String {
        parse(pairs).expect_err("must be refused").code.into_owned()
    }

    #[test]
    fn values_arrive_as_what_the_table_says() {
        let arguments = parse(&[
            ("Force", "True"),
            ("Size", "40"),
            ("At", "2026-11-23T06:48:13Z"),
            ("Type", "image"),
            ("Name", "web"),
            ("SourceId.3", "c"),
            ("SourceId.1", "a"),
            ("RunOnce", "True"),
            ("OwnerId", "ignored"),
        ])
        .unwrap();
        assert_eq!(arguments.boolean("Force"), Some(true));
        assert_eq!(arguments.integer("Size"), Some(40));
        assert_eq!(arguments.text("Type"), Some("Image"));
        assert_eq!(
            arguments.texts("SourceId.N"),
            Some(vec!["a".to_owned(), "c".to_owned()])
        );
        assert_eq!(arguments.required_text("JobId"), "j-1");
    }

    #[test]
    fn an_empty_text_is_none_except_for_a_description() {
        let arguments = parse(&[
            ("Name", ""),
            ("Size", ""),
            ("Description", ""),
            ("Disks.System.Size", ""),
        ])
        .unwrap();
        assert_eq!(arguments.name("Name"), None);
        assert_eq!(arguments.text("Description"), Some(""));
        assert_eq!(
            Arguments::parse(TABLE, &vec![("JobId".to_owned(), String::new())])
                .unwrap_err()
                .code,
            "MissingJobId"
        );
    }

    #[test]
    fn every_rule_has_its_edges() {
        for (pairs, wanted) in [
            (&[("Size", "19")][..], "InvalidSize"),
            (&[("Size", "501")], "InvalidSize"),
            (&[("Size", "40.0")], "InvalidSize"),
            (&[("Force", "yes")], "InvalidForce"),
            (&[("At", "2027-02-30T00:00:00Z")], "InvalidAt"),
            (&[("At", "2027-02-20T00:00:00.000Z")], "InvalidAt"),
            (&[("Type", "Container")], "InvalidType"),
            (&[("Name", "1a")], "InvalidName"),
            (&[("Name", "ab"), ("Name", "ac")], "InvalidName"),
            (&[("RunOnce", "false")], "InvalidRunOnce"),
            (&[("SourceId.0", "a")], "InvalidSourceId"),
            (&[("SourceId.4", "a")], "InvalidSourceId"),
            (&[("SourceId.x", "a")], "InvalidSourceId"),
            (&[("SourceId", "a")], "InvalidSourceId"),
            (&[("SourceId.-1", "a")], "InvalidSourceId"),
            (&[("DataDisk.17.Index", "1")], "InvalidDataDisk.Index"),
            (&[("DataDisk.1.Index", "17")], "InvalidDataDisk.Index"),
            (&[("DataDisk.1.Speed", "1")], "InvalidDataDisk"),
            (&[("Disks.System.Size", "40")], "InvalidDisks"),
            (
                &[("DataDisk.1.Part.1.Device", "1_0")],
                "InvalidDataDisk.Part",
            ),
        ] {
            assert_eq!(code(pairs), wanted, "{pairs:?}");
        }
        assert!(parse(&[("Size", "20"), ("DataDisk.16.Index", "16")]).is_ok());
    }

    #[test]
    fn the_digest_tells_calls_apart_but_not_by_token_order_or_noise() {
        let one = parse(&[("Size", "40"), ("Name", "web")]).unwrap().digest();
        assert_eq!(
            one,
            parse(&[("Name", "web"), ("OwnerId", "7"), ("Size", "40")])
                .unwrap()
                .digest()
        );
        assert_ne!(
            one,
            parse(&[("Name", "web"), ("Size", "41")]).unwrap().digest()
        );
    }

    proptest! {
        #[test]
        fn no_call_makes_it_panic(pairs in prop::collection::vec(("[A-Za-z0-9.]{0,20}", ".{0,20}"), 0..12)) {
            let _ = Arguments::parse(TABLE, &pairs);
        }
    }
}
