//! Access policies (SMC API §4.3): the actions that a user may perform, on which resources, and under which conditions.
//!
//! A policy is parsed strictly: a policy with anything unknown to this version is refused when it is written. If a rule
//! were skipped when a call is decided, the call could pass although the rule was meant to forbid it.

mod condition;
mod decision;
#[cfg(test)]
mod decision_tests;
mod document;
mod json;
mod operator;
mod wildcard;

pub use condition::{Circumstances, Key};
pub use decision::{Decision, Request, decide};
pub use document::{Effect, InvalidPolicy, MAX_POLICY_BYTES, Policy};
pub use wildcard::matches;

/// Returns true if `text` can name a user: 1–64 letters, digits, `.`, `_` and `-`.
pub fn is_user_name(text: &str) -> bool {
    is_name(text, 64, |byte| matches!(byte, b'.' | b'_' | b'-'))
}

/// Returns true if `text` can name a policy: 1–128 letters, digits and `-`.
pub fn is_policy_name(text: &str) -> bool {
    is_name(text, 128, |byte| byte == b'-')
}

fn is_name(text: &str, most: usize, is_extra: impl Fn(u8) -> bool) -> bool {
    (1..=most).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || is_extra(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        for good in ["a", "build.bot_1-x", &"a".repeat(64)] {
            assert!(is_user_name(good), "{good:?}");
        }
        for bad in ["", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(!is_user_name(bad), "{bad:?}");
        }
        assert!(is_policy_name("read-only-1"));
        for bad in ["", "a.b", "a_b", &"a".repeat(129)] {
            assert!(!is_policy_name(bad), "{bad:?}");
        }
    }
}
