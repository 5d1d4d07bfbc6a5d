//! The check of one value against its parameter's rule.

use std::str::FromStr as _;

use domain::Timestamp;
use domain::name::{Name, is_source_description, is_workgroup_description, is_workgroup_name};
use domain::parameters::ReplicationParameters;
use domain::printable::is_printable;
use domain::tag::{is_key, is_value};
use serde_json::Value;

use super::parameter::{Parameter, Rule};
use crate::Refusal;

/// Checks one value. An empty text counts as missing, except where a rule allows it.
pub(super) fn check(parameter: &Parameter, text: &str) -> Result<Option<Value>, Refusal> {
    if text.is_empty() && !matches!(parameter.rule, Rule::SourceDescription) {
        return Ok(None);
    }
    let invalid = |because: String| Refusal::invalid(&parameter.code_name(), because);
    if !parameter.rule.allows_characters_of(text) {
        return Err(invalid(
            "It must not contain control characters, line breaks or invisible characters."
                .to_owned(),
        ));
    }
    let value = match &parameter.rule {
        Rule::Text(most) => {
            if text.chars().count() > *most {
                return Err(invalid(format!("It must have at most {most} characters.")));
            }
            Value::from(text)
        }
        Rule::Name => {
            Name::parse(text).map_err(|error| invalid(format!("Note that {error}.")))?;
            Value::from(text)
        }
        Rule::SourceDescription => {
            if !is_source_description(text) {
                return Err(invalid(
                    "It must have at most 256 characters and must not begin with http:// or https://."
                        .to_owned(),
                ));
            }
            Value::from(text)
        }
        Rule::Token(most) => {
            if text.len() > *most || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return Err(invalid(format!("It must have at most {most} printable ASCII characters.")));
            }
            Value::from(text)
        }
        Rule::Integer(least, most) => Value::from(integer(parameter, text, *least, *most)?),
        Rule::SystemDiskGib => Value::from(integer(parameter, text, 20, 2048)?),
        Rule::Boolean => Value::from(
            parse_boolean(text).ok_or_else(|| invalid("It must be true or false.".to_owned()))?,
        ),
        Rule::Time => {
            Timestamp::from_str(text).map_err(|_| {
                invalid("It must be a UTC time of the form YYYY-MM-DDThh:mm:ssZ.".to_owned())
            })?;
            Value::from(text)
        }
        Rule::OneOf(texts) => texts
            .iter()
            .find(|known| *known == text)
            .map(|known| Value::from(known.as_str()))
            .ok_or_else(|| parameter.not_one_of(texts))?,
        Rule::OneOfAnyCase(texts) => texts
            .iter()
            .find(|known| known.eq_ignore_ascii_case(text))
            .map(|known| Value::from(known.as_str()))
            .ok_or_else(|| parameter.not_one_of(texts))?,
        Rule::ReplicationParameters => {
            ReplicationParameters::parse(text).map_err(|error| invalid(format!("{error}.")))?;
            Value::from(text)
        }
        Rule::WorkgroupName => Value::from(
            is_workgroup_name(text)
                .then_some(text)
                .ok_or_else(|| {
                    invalid("It must have 2 to 64 letters, digits, '.', ':', '_' or '-', and must begin with a letter.".to_owned())
                })?,
        ),
        Rule::WorkgroupDescription => Value::from(
            is_workgroup_description(text)
                .then_some(text)
                .ok_or_else(|| {
                    invalid("It must have 2 to 256 characters and must not begin with http:// or https://.".to_owned())
                })?,
        ),
        Rule::TagKey | Rule::TagValue => Value::from(check_tag(&parameter.rule, text)?),
        Rule::Only(value, sentence) => {
            if !text.eq_ignore_ascii_case(value) {
                return Err(invalid(sentence.clone()));
            }
            return Ok(None);
        }
        Rule::NotOffered(sentence) => return Err(invalid((*sentence).to_owned())),
    };
    Ok(Some(value))
}

impl Rule {
    /// Returns false if `text` has characters that nobody can see. Tags have an error code of their own for such
    /// characters. JSON may have white space between its values.
    fn allows_characters_of(&self, text: &str) -> bool {
        match self {
            Self::TagKey | Self::TagValue => true,
            Self::ReplicationParameters => text.split(['\n', '\r', '\t']).all(is_printable),
            _ => is_printable(text),
        }
    }
}

fn integer(parameter: &Parameter, text: &str, least: i64, most: i64) -> Result<i64, Refusal> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            let because = format!("It must be a whole number from {least} to {most}.");
            Refusal::invalid(&parameter.code_name(), because)
        })
}

/// Checks a tag's key or value. Tags have error codes of their own.
fn check_tag<'a>(rule: &Rule, text: &'a str) -> Result<&'a str, Refusal> {
    let (is_allowed, code, because) = if matches!(rule, Rule::TagKey) {
        (
            is_key(text),
            "InvalidParameter.TagKey",
            "The specified tag key is not valid. It must have at most 128 printable characters, must not begin with aliyun or acs:, and must not contain http:// or https://.",
        )
    } else {
        (
            is_value(text),
            "InvalidParameter.TagValue",
            "The specified tag value is not valid. It must have at most 128 printable characters.",
        )
    };
    if is_allowed {
        Ok(text)
    } else {
        Err(Refusal::new(code, because))
    }
}

/// Parses a boolean: Python writes `True`, other languages `true`.
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
    use domain::printable::EVIL;

    use super::*;
    use crate::operations;

    #[test]
    fn no_parameter_of_any_operation_takes_text_that_deceives() {
        for operation in operations::all() {
            for parameter in &operation.parameters {
                for evil in EVIL {
                    let name = format!("{} {} {evil:?}", operation.name, parameter.name);
                    let refusal = check(parameter, evil).expect_err(&name);
                    assert!(is_printable(&refusal.message), "{name}: {refusal}");
                }
            }
        }
    }

    #[test]
    fn json_may_have_white_space() {
        let parameter = Parameter {
            name: "P".to_owned(),
            rule: Rule::ReplicationParameters,
            is_required: false,
            most: 0,
            meaning: String::new(),
        };
        assert!(check(&parameter, "{\n\t\"checksum\": true\r\n}").is_ok());
        assert!(check(&parameter, "{\"checksum\": true}\u{202e}").is_err());
    }
}
