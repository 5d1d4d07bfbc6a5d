//! Access policies (SMC API §4.3): what a user may do, to which resources, and under which conditions.
//!
//! A policy is read strictly: what this version does not know is refused when the policy is written, because a rule that is skipped when a
//! call is decided lets through what somebody wanted to forbid.

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

/// Whether a text can name a user: 1–64 letters, digits, `.`, `_` and `-`.
pub fn is_user_name(text: &str) -> bool {
    is_name(text, 64, |byte| matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether a text can name a policy: 1–128 letters, digits and `-`.
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
