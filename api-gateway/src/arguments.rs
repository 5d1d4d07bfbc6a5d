//! Parameters of operations: their rules, and the checked request that handlers get.
//!
//! The type of a request determines the parameters of its operation. Others are ignored (SDKs send `OwnerId` and
//! `RegionId` with everything). Parameters of SMC that Wherry does not offer are in the table as well, and are refused
//! with a sentence.

mod parameter;
mod value;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use smc::Pairs;

use crate::Refusal;
use parameter::Fit;
pub use parameter::{Parameter, Rule};
use value::check;

/// The checked parameters of one call, as the tree that its request is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments(Value);

impl Arguments {
    /// Checks the parameters of a call against the table of its operation.
    ///
    /// # Errors
    /// The first parameter, in the order of the table, that is missing, given twice or breaks its rule.
    pub fn parse(table: &[Parameter], pairs: &Pairs) -> Result<Self, Refusal> {
        let mut tree = Value::Object(Map::new());
        check_names(table, pairs)?;
        for parameter in table {
            let mut values = BTreeMap::new();
            for (name, text) in pairs {
                let Fit::At(number) = parameter.fit(name) else {
                    continue;
                };
                let Some(value) = check(parameter, text)? else {
                    continue;
                };
                if values.insert(number, value).is_some() {
                    return Err(Refusal::invalid(
                        &parameter.code_name(),
                        "It must be given once.",
                    ));
                }
            }
            if parameter.is_required && values.is_empty() {
                return Err(parameter.missing());
            }
            for (number, value) in values {
                put(&mut tree, parameter.name.split('.'), number, value);
            }
        }
        Ok(Self(tree))
    }

    /// Converts the parameters into the request.
    ///
    /// # Panics
    /// If its type is not the one whose table the parameters were checked against.
    pub fn into_request<O: DeserializeOwned>(self) -> O {
        serde_json::from_value(self.0).expect("what keeps the rules of a type can be read as it")
    }
}

/// Puts a value at its place in the tree. A list of values holds only the values that are given. A list of objects
/// keeps every position, so those that are not given become objects without fields.
fn put<'a>(
    at: &mut Value,
    mut path: impl Iterator<Item = &'a str> + Clone,
    number: u32,
    value: Value,
) {
    let Some(part) = path.next() else {
        *at = value;
        return;
    };
    if part != "N" {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        return put(&mut at[part], path, number, value);
    }
    if at.is_null() {
        *at = Value::Array(Vec::new());
    }
    let Value::Array(items) = at else {
        unreachable!("a parameter is a list or none");
    };
    if path.clone().next().is_none() {
        items.push(value);
        return;
    }
    let place = number.saturating_sub(1) as usize;
    if items.len() <= place {
        items.resize_with(place + 1, || Value::Object(Map::new()));
    }
    put(&mut items[place], path, number, value);
}

/// Refuses names that are almost elements of a list: ignoring them would ignore part of the request.
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
                        format!("{name}: N must be 1 to {}.", parameter.most),
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
                format!("{name} must be of the form {}.", parameter.name),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use serde::{Deserialize, Serialize};
    use smc::model;
    use utoipa::ToSchema;

    use super::*;
    use crate::schema::{Of, Schemas};

    #[derive(Debug, PartialEq, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "PascalCase")]
    struct Request {
        #[schema(max_length = 64)]
        job_id: String,
        #[schema(format = "name")]
        name: Option<String>,
        #[schema(max_length = 256, pattern = "^(?!https?://)")]
        description: Option<String>,
        force: Option<bool>,
        #[schema(minimum = 20, maximum = 500)]
        size: Option<u32>,
        #[schema(format = DateTime)]
        at: Option<String>,
        r#type: Option<model::TargetType>,
        job_type: Option<model::MigrationType>,
        #[schema(max_items = 3, value_type = Option<Vec<model::Id>>)]
        source_id: Option<Vec<String>>,
        #[schema(max_items = 16)]
        data_disk: Option<Vec<model::DataDiskSize>>,
    }

    fn table() -> Vec<Parameter> {
        let request = Schemas::of::<Request>(Of::Request);
        Parameter::of(&request, &[("DataDisk.N.Part", ""), ("Disks", "No LVM.")])
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Request, Refusal> {
        let pairs: Pairs = [("JobId", "j-1")]
            .iter()
            .chain(pairs)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Ok(Arguments::parse(&table(), &pairs)?.into_request())
    }

    fn code(pairs: &[(&str, &str)]) -> String {
        parse(pairs).expect_err("must be refused").code.into_owned()
    }

    #[test]
    fn values_arrive_as_what_the_table_says() {
        let request = parse(&[
            ("Force", "True"),
            ("Size", "40"),
            ("At", "2026-11-23T06:48:13Z"),
            ("Type", "image"),
            ("Name", "web"),
            ("SourceId.3", "c"),
            ("SourceId.1", "a"),
            ("JobType", "0"),
            ("OwnerId", "ignored"),
        ])
        .unwrap();
        assert_eq!(request.force, Some(true));
        assert_eq!(request.size, Some(40));
        assert_eq!(request.r#type, Some(model::TargetType::Image));
        assert_eq!(
            request.source_id,
            Some(vec!["a".to_owned(), "c".to_owned()])
        );
        assert_eq!(request.job_id, "j-1");
        assert_eq!(request.job_type, None);
    }

    #[test]
    fn objects_of_a_list_keep_their_places() {
        let request = parse(&[("DataDisk.3.Size", "40"), ("DataDisk.1.Index", "2")]).unwrap();
        let disks = request.data_disk.unwrap();
        let shown: Vec<_> = disks.iter().map(|disk| (disk.index, disk.size)).collect();
        assert_eq!(shown, [(Some(2), None), (None, None), (None, Some(40))]);
    }

    #[test]
    fn an_empty_text_is_none_except_for_a_description() {
        let request = parse(&[
            ("Name", ""),
            ("Size", ""),
            ("Description", ""),
            ("Disks.System.Size", ""),
        ])
        .unwrap();
        assert_eq!(request.name, None);
        assert_eq!(request.description.as_deref(), Some(""));
        assert_eq!(
            Arguments::parse(&table(), &vec![("JobId".to_owned(), String::new())])
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
            (&[("JobType", "1")], "InvalidJobType"),
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

    proptest! {
        #[test]
        fn no_call_makes_it_panic(pairs in prop::collection::vec(("[A-Za-z0-9.]{0,20}", ".{0,20}"), 0..12)) {
            let _ = Arguments::parse(&table(), &pairs);
        }
    }
}
