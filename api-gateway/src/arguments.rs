//! Parameters of operations: their rules as data, and the checked values that handlers get.
//!
//! The table of an operation says which parameters it has. Whatever a call carries beyond them is ignored (SDKs send `OwnerId` and
//! `RegionId` with everything); what the API knows but Wherry does not offer is in the table as well, and refused with a sentence.

mod parameter;
mod value;

use std::collections::BTreeMap;

use domain::Timestamp;
use domain::name::Name;
use smc::Pairs;

use crate::Refusal;
use parameter::Fit;
pub use parameter::{Parameter, Rule};
use value::{Value, check};

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
