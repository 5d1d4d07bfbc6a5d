//! `*` and `?` in actions, resources and `StringLike`.

/// Returns true if `pattern` matches the whole of `text`. `*` is any run of characters, including the empty run and
/// runs over `/` and `:`. `?` is exactly one character. The first `folded` bytes of `text` are compared without regard
/// to ASCII case.
///
/// The search backtracks only to the last `*`, because the last one can match whatever an earlier one could. So a
/// comparison takes at most pattern × text steps, whatever the pattern.
pub fn matches(pattern: &str, text: &str, folded: usize) -> bool {
    let mut pattern_at = pattern.chars().peekable();
    let mut text_at = text.char_indices().peekable();
    // The pattern behind the last star, and the text that the star has not matched yet.
    let mut star = None;
    loop {
        let rest = (pattern_at.clone(), text_at.clone());
        match (pattern_at.next(), text_at.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                // The star matches nothing at first.
                text_at = rest.1;
                star = Some((pattern_at.clone(), text_at.clone()));
                if pattern_at.peek().is_none() {
                    return true;
                }
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some((at, found)))
                if wanted == found || (at < folded && wanted.eq_ignore_ascii_case(&found)) => {}
            _ => {
                let Some((behind, mut from)) = star else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                pattern_at = behind.clone();
                text_at = from.clone();
                star = Some((behind, from));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// Matches by the definition, in every possible way.
    fn reference(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=text.len()).any(|taken| reference(rest, &text[taken..])),
            (Some(('?', pattern)), Some((_, text))) => reference(pattern, text),
            (Some((wanted, pattern)), Some((found, text))) => {
                wanted == found && reference(pattern, text)
            }
            _ => false,
        }
    }

    #[test]
    fn wildcards_describe_whole_texts() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("*", "acs:smc:local:1:sourceServer/s-1", true),
            ("?", "", false),
            ("?", "ä", true),
            ("", "", true),
            ("", "a", false),
            ("smc:Describe*", "smc:DescribeSourceServers", true),
            ("smc:Describe*", "smc:DeleteSourceServer", false),
            ("smc:*Job", "smc:StopReplicationJob", true),
            ("smc:*Job", "smc:StopReplicationJobs", false),
            ("a*b?c", "aXXbbYc", true),
            ("a*b?c", "abc", false),
            ("**a**", "a", true),
        ] {
            assert_eq!(matches(pattern, text, 0), wanted, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn only_the_folded_part_forgets_case() {
        assert!(matches("kind/s-1", "Kind/s-1", 4));
        assert!(matches("KIND/*", "Kind/s-1", 4));
        assert!(!matches("kind/S-1", "Kind/s-1", 4));
        assert!(!matches("kind/s-1", "Kind/s-1", 0));
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_long_time() {
        let pattern = "*a".repeat(500) + "b";
        let text = "a".repeat(2_000);
        let began = Instant::now();
        assert!(!matches(&pattern, &text, 0));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn the_matcher_is_the_definition(pattern in "[ab?*]{0,8}", text in "[ab]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                matches(&pattern, &text, 0),
                reference(&characters(&pattern), &characters(&text))
            );
        }
    }
}
