//! The rules for names and descriptions (SMC API §1.0), and for the files of an image.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::printable::is_printable;

/// A name: 2–128 letters, digits, `:` `_` `-`. It begins with a letter, and not with `http://` or `https://`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text breaks the rule for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name must have 2 to 128 letters, digits, ':', '_' or '-', must begin with a letter and must not begin with http:// or https://"
)]
pub struct InvalidName;

impl Name {
    /// Checks the rule.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let length = text.chars().count();
        let begins_with_letter = text.chars().next().is_some_and(char::is_alphabetic);
        let characters_allowed = text
            .chars()
            .all(|character| character.is_alphanumeric() || matches!(character, ':' | '_' | '-'));
        if (2..=128).contains(&length)
            && begins_with_letter
            && characters_allowed
            && !begins_like_url(text)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// Returns true if `text` can name a workgroup: 2–64 letters, digits, `.` `:` `_` `-`. It begins with a letter, and not
/// with `http://` or `https://`.
pub fn is_workgroup_name(text: &str) -> bool {
    (2..=64).contains(&text.chars().count())
        && text.chars().next().is_some_and(char::is_alphabetic)
        && text.chars().all(|character| {
            character.is_alphanumeric() || matches!(character, '.' | ':' | '_' | '-')
        })
}

/// Returns true if `text` can describe a workgroup: 2–256 printable characters that do not begin with `http://` or
/// `https://`.
pub fn is_workgroup_description(text: &str) -> bool {
    text.chars().count() >= 2 && is_source_description(text)
}

/// Returns true if `text` can describe a source: at most 256 printable characters that do not begin with `http://` or
/// `https://`. It may be empty.
pub fn is_source_description(text: &str) -> bool {
    text.chars().count() <= 256 && !begins_like_url(text) && is_printable(text)
}

/// Returns true if `text` can name a file in an image: 1–255 ASCII letters, digits, `.` `_` `-`, not beginning with
/// `.`. Such a name can't leave its directory.
pub fn is_image_file(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn begins_like_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_descriptions_of_workgroups_follow_their_rules() {
        for good in ["ab", "wave.1:a_b-c", "Köln", &"a".repeat(64)] {
            assert!(is_workgroup_name(good), "{good:?}");
        }
        for bad in ["a", "1a", ".a", "a b", "http://a", &"a".repeat(65)] {
            assert!(!is_workgroup_name(bad), "{bad:?}");
        }
        assert!(is_workgroup_description("All of it.") && !is_workgroup_description("a"));
        assert!(!is_workgroup_description("http://a"));
        for evil in crate::printable::EVIL {
            assert!(
                !is_workgroup_name(evil) && !is_workgroup_description(evil),
                "{evil:?}"
            );
            assert!(
                !is_source_description(evil) && Name::parse(evil).is_err(),
                "{evil:?}"
            );
        }
    }

    #[test]
    fn no_name_of_a_file_leads_out_of_its_directory() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            ".hidden",
            "a\0b",
            "a b",
            "a\nb",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(!is_image_file(bad), "{bad:?}");
        }
        assert!(is_image_file("disk-0.qcow2") && is_image_file(&"a".repeat(255)));
    }

    #[test]
    fn names_follow_the_rule() {
        for good in ["ab", "Web:01_a-b", "Köln", "服务器", &"a".repeat(128)] {
            assert!(Name::parse(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "1ab",
            "_ab",
            "a b",
            "a/b",
            "http://a",
            "https://ab",
            "-a",
            &"a".repeat(129),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }
}
