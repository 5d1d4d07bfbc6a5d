//! Text that others wrote, made safe for a terminal and for a log of lines.
//!
//! A control character moves the cursor. A line break forges a line. A bidirectional control shows text in another
//! order than it has. Text from tenants, agents and servers goes through [`printable`] before a person sees it. Text
//! that Wherry stores is checked with [`is_printable`].

use std::borrow::Cow;

/// Returns true if `text` has no character that [`printable`] replaces.
pub fn is_printable(text: &str) -> bool {
    !text.chars().any(deceives)
}

/// Returns `text` with each deceiving character as its escape, such as `\n` or `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if is_printable(text) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if deceives(character) {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    Cow::Owned(clean)
}

/// Returns true for controls, line and paragraph separators, bidirectional controls, and characters that show nothing.
///
/// Joiners (U+200C, U+200D) and variation selectors are kept: scripts and emoji need them, and they neither move nor
/// reorder text.
fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Test texts for every place that accepts or shows foreign text.
pub const EVIL: &[&str] = &[
    "a\0b",
    "a\x1b[2Jb",
    "a\x1b]0;title\x07b",
    "a\nforged line",
    "a\rb",
    "a\r\nb",
    "a\tb",
    "a\x08b",
    "a\x7fb",
    "a\u{85}b",
    "a\u{9b}31mb",
    "a\u{2028}b",
    "a\u{2029}b",
    "a\u{202e}b",
    "a\u{2066}b",
    "a\u{200f}b",
    "a\u{61c}b",
    "a\u{feff}b",
    "a\u{e0041}b",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deceiving_text_is_found_and_loses_what_deceives() {
        for text in EVIL {
            assert!(!is_printable(text), "{text:?}");
            let clean = printable(text);
            assert!(is_printable(&clean), "{text:?} became {clean:?}");
        }
        assert_eq!(
            printable("a\x1b[2J\r\n\u{202e}b"),
            "a\\u{1b}[2J\\r\\n\\u{202e}b"
        );
    }

    #[test]
    fn text_of_every_script_is_left_as_it_is() {
        for text in [
            "",
            "a b",
            "Köln",
            "服务器",
            "שלום",
            "نمی\u{200c}خواهم",
            "👩\u{200d}💻",
            "❤\u{fe0f}",
        ] {
            assert!(is_printable(text), "{text:?}");
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }
}
