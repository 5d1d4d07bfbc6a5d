//! The parameters that a request's schema describes.

use serde_json::Value;
use utoipa::openapi::schema::{KnownFormat, SchemaType, Type};
use utoipa::openapi::{Object, SchemaFormat};

use crate::Refusal;
use crate::schema::Schemas;

/// The rule for a value.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Any text of at most this many characters.
    Text(usize),
    /// 2–128 letters, digits, `:`, `_`, `-`, beginning with a letter.
    Name,
    /// At most 256 characters, possibly none, not beginning with `http://` or `https://`.
    SourceDescription,
    /// At most this many ASCII characters.
    Token(usize),
    /// A whole number between two bounds.
    Integer(i64, i64),
    /// A whole number from 20 to 500, or to the operator's limit, which is 2048 at most.
    SystemDiskGib,
    /// `true` or `false` in any case.
    Boolean,
    /// `YYYY-MM-DDThh:mm:ssZ`.
    Time,
    /// One of these texts.
    OneOf(Vec<String>),
    /// One of these texts in any case; the handler gets this spelling.
    OneOfAnyCase(Vec<String>),
    /// A JSON object text, parsed by `domain::parameters`.
    ReplicationParameters,
    /// The name of a workgroup.
    WorkgroupName,
    /// The description of a workgroup.
    WorkgroupDescription,
    /// The key of a tag.
    TagKey,
    /// The value of a tag.
    TagValue,
    /// Only this value, which is also the default; others are not offered. The sentence explains this.
    Only(String, String),
    /// Not offered, nor anything below it. The sentence explains this.
    NotOffered(&'static str),
}

impl Rule {
    /// Reads the rule from a schema; `None` if the schema has none that a gateway checks.
    fn of(schema: &Object) -> Option<Self> {
        let most = schema.max_length;
        if let Some(texts) = &schema.enum_values {
            return Some(Self::of_texts(schema, texts));
        }
        if schema.content_media_type == "application/json" {
            return Some(Self::ReplicationParameters);
        }
        if schema.pattern.is_some() {
            return Some(Self::SourceDescription);
        }
        match &schema.format {
            Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)) => return Some(Self::Time),
            Some(SchemaFormat::Custom(format)) => {
                return match format.as_str() {
                    "name" => Some(Self::Name),
                    "ascii" => most.map(Self::Token),
                    "system-disk-gib" => Some(Self::SystemDiskGib),
                    "workgroup-name" => Some(Self::WorkgroupName),
                    "workgroup-description" => Some(Self::WorkgroupDescription),
                    "tag-key" => Some(Self::TagKey),
                    "tag-value" => Some(Self::TagValue),
                    _ => None,
                };
            }
            _ => {}
        }
        match &schema.schema_type {
            SchemaType::Type(Type::String) => most.map(Self::Text),
            SchemaType::Type(Type::Boolean) => Some(Self::Boolean),
            SchemaType::Type(Type::Integer) => Some(Self::Integer(
                whole(schema.minimum.as_ref()?)?,
                whole(schema.maximum.as_ref()?)?,
            )),
            _ => None,
        }
    }

    fn of_texts(schema: &Object, texts: &[Value]) -> Self {
        let mut texts: Vec<String> = texts
            .iter()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect();
        let extension = |name: &str| schema.extensions.as_ref()?.get(name);
        if let Some(Value::String(sentence)) = extension("x-otherwise") {
            return Self::Only(texts.swap_remove(0), sentence.clone());
        }
        if extension("x-any-case").is_some() {
            Self::OneOfAnyCase(texts)
        } else {
            Self::OneOf(texts)
        }
    }
}

fn whole(number: &impl serde::Serialize) -> Option<i64> {
    serde_json::to_value(number).ok()?.as_i64()
}

/// One parameter of an operation.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name; `SourceId.N` and `DataDisk.N.Size` for lists.
    pub name: String,
    /// The rule for its value.
    pub rule: Rule,
    /// True if it must be given.
    pub is_required: bool,
    /// For a list, the largest N.
    pub most: u32,
    /// Its meaning.
    pub meaning: String,
}

impl Parameter {
    /// Returns the parameters of a request, followed by those of SMC that Wherry does not offer.
    ///
    /// # Panics
    /// If the type of a field has no rule: the value would not be checked.
    pub fn of(request: &Schemas, not_offered: &[(&'static str, &'static str)]) -> Vec<Self> {
        let mut parameters = Vec::new();
        request.leaves(".N", &mut |name, leaf| {
            let rule = Rule::of(leaf.schema);
            parameters.push(Self {
                rule: rule.unwrap_or_else(|| panic!("{}: {name} has no rule", request.name)),
                is_required: leaf.is_required,
                most: u32::try_from(leaf.most).unwrap_or(u32::MAX),
                meaning: leaf.meaning.to_owned(),
                name,
            });
        });
        parameters.extend(not_offered.iter().map(|&(name, sentence)| Self {
            name: name.to_owned(),
            rule: Rule::NotOffered(sentence),
            is_required: false,
            most: 0,
            meaning: "not offered".to_owned(),
        }));
        parameters
    }

    /// Returns true for ResourceType, whose refusals have codes of their own.
    fn is_resource_type(&self) -> bool {
        self.name == "ResourceType"
    }

    /// Returns the name in error codes: without the `.N`.
    pub fn code_name(&self) -> String {
        self.name.replace(".N", "")
    }

    pub(super) fn missing(&self) -> Refusal {
        if self.is_resource_type() {
            Refusal::new(
                "MissingParameter.ResourceType",
                "You must specify ResourceType.",
            )
        } else {
            Refusal::missing(&self.code_name())
        }
    }

    /// Refuses a value that is not one of the allowed texts.
    pub(super) fn not_one_of(&self, texts: &[String]) -> Refusal {
        if self.is_resource_type() {
            Refusal::new(
                "InvalidResourceType.NotFound",
                "The specified ResourceType does not exist.",
            )
        } else {
            let because = format!("It must be one of {}.", texts.join(", "));
            Refusal::invalid(&self.code_name(), because)
        }
    }

    /// Returns true if `name` of a call is this parameter, even at an N that is too large.
    pub fn is_named(&self, name: &str) -> bool {
        matches!(self.fit(name), Fit::At(_) | Fit::OutOfRange)
    }

    /// Compares `name` of a call with this parameter.
    pub(super) fn fit(&self, name: &str) -> Fit {
        if let Rule::NotOffered(_) = self.rule {
            return if is_at_or_below(name, &self.name) {
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

/// Returns true if `name` begins with the parts of `pattern`, in which `N` stands for any part.
fn is_at_or_below(name: &str, pattern: &str) -> bool {
    let mut parts = name.split('.');
    pattern.split('.').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| wanted == "N" || wanted == part)
    })
}

/// The relation of a name in a call to a parameter.
pub(super) enum Fit {
    /// The name is this parameter, at this N (0 if it is no list).
    At(u32),
    /// The name is this parameter at an N that the parameter does not have.
    OutOfRange,
    /// The name begins like this list but is no element of it, such as `SourceId` or `DataDisk.1.Speed`.
    Resembles,
    /// The name is another parameter.
    Not,
}
