//! Tags: keys and values that tenants put on their sources, jobs and workgroups (SMC API §2).

use serde::{Deserialize, Serialize};

use crate::printable::is_printable;

/// Tags that one resource may have, and that one call may name.
pub const MOST_TAGS: usize = 20;

/// Longest key and longest value, in characters.
const MAX_LENGTH: usize = 128;

/// A key with its value, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// The key, unique within a resource.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A filter for a list: resources that have the key, and the value if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    /// The key.
    pub key: String,
    /// The value; `None` is any.
    pub value: Option<String>,
}

/// Returns true if `text` can be a key: 1–128 printable characters, not beginning with `aliyun` or `acs:`, without
/// `http://` and `https://`.
pub fn is_key(text: &str) -> bool {
    !text.is_empty()
        && is_value(text)
        && !text.starts_with("aliyun")
        && !text.starts_with("acs:")
        && !text.contains("http://")
        && !text.contains("https://")
}

/// Returns true if `text` can be a value: at most 128 printable characters.
pub fn is_value(text: &str) -> bool {
    text.chars().count() <= MAX_LENGTH && is_printable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_follow_the_rule() {
        for good in [
            "a",
            "env",
            "Größe",
            "team:web/1",
            "my-aliyun",
            &"k".repeat(128),
        ] {
            assert!(is_key(good), "{good:?}");
        }
        for bad in [
            "",
            "aliyun",
            "aliyun-x",
            "acs:x",
            "http://a",
            "see https://a",
            &"k".repeat(129),
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
        assert!(is_value("") && is_value(&"v".repeat(128)) && is_value("http://a"));
        assert!(!is_value(&"v".repeat(129)));
        for evil in crate::printable::EVIL {
            assert!(!is_key(evil) && !is_value(evil), "{evil:?}");
        }
    }
}
