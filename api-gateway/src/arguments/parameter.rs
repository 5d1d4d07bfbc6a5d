//! What the table of an operation says of a parameter.

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
    /// A whole number from 20 to 500, or to what the operator allows, which is 2048 at most.
    SystemDiskGib,
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

    pub(super) fn missing(&self) -> Refusal {
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
    pub(super) fn fit(&self, name: &str) -> Fit {
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

/// How a name of a call fits a parameter.
pub(super) enum Fit {
    /// It is this parameter, at this N (0 if it is no list).
    At(u32),
    /// It is this parameter at an N that it does not have.
    OutOfRange,
    /// It begins like this list but is no element of it, such as `SourceId` or `DataDisk.1.Speed`.
    Resembles,
    /// It is something else.
    Not,
}
