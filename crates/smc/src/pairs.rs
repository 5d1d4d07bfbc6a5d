//! Parameters as pairs of name and value: read from a query or a form body, and written in the one form that is signed.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// Parameters in the order in which they came.
pub type Pairs = Vec<(String, String)>;

/// RFC 3986: letters, digits, `-`, `_`, `.` and `~` stay as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A name or value is no UTF-8 once its `%XX` are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a parameter is not UTF-8")]
pub struct NotUtf8;

/// Reads `a=1&b=2`: `+` is a space, `%XX` a byte. A name without `=` has an empty value; a `%` that begins no `%XX`
/// stays.
///
/// # Errors
/// [`NotUtf8`].
pub fn parse(text: &[u8]) -> Result<Pairs, NotUtf8> {
    text.split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |&byte| byte == b'=');
            let name = decode(halves.next().unwrap_or_default())?;
            let value = decode(halves.next().unwrap_or_default())?;
            Ok((name, value))
        })
        .collect()
}

fn decode(text: &[u8]) -> Result<String, NotUtf8> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    String::from_utf8(percent_decode(&spaced).collect()).map_err(|_| NotUtf8)
}

/// Encodes one name or value by RFC 3986, with upper-case digits.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The canonical text: sorted by name (then value), encoded by RFC 3986, joined with `&`. Also a valid query and form
/// body.
pub fn canonical<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
    let mut sorted: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .collect();
    sorted.sort_unstable();
    let encoded: Vec<String> = sorted
        .into_iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    encoded.join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encodings_of_all_clients_mean_the_same() {
        let wanted = vec![("Name".to_owned(), "a b!'()*~+é".to_owned())];
        for text in [
            "Name=a+b!'()*~%2B%C3%A9",
            "Name=a%20b%21%27%28%29%2A%7E%2b%c3%a9",
            "&Name=a%20b!%27()*~%2B%C3%A9&",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(wanted.clone()), "{text}");
        }
        assert_eq!(canonical(&wanted), "Name=a%20b%21%27%28%29%2A~%2B%C3%A9");
    }

    #[test]
    fn odd_pairs_are_read_as_far_as_they_mean_something() {
        let pairs = parse(b"a&b=&=c&d=e=f&%zz=1").unwrap();
        let wanted = [("a", ""), ("b", ""), ("", "c"), ("d", "e=f"), ("%zz", "1")];
        assert_eq!(
            pairs,
            wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(parse(b"a=%ff"), Err(NotUtf8));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(pairs in prop::collection::vec((".{0,12}", ".{0,40}"), 0..8)) {
            let mut sorted = pairs.clone();
            sorted.sort();
            // A pair without name and value has no text of its own between the two `&`.
            let read = parse(canonical(&pairs).as_bytes()).unwrap();
            prop_assert_eq!(read, sorted);
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(mut pairs in prop::collection::vec((".{0,6}", ".{0,6}"), 0..8)) {
            let before = canonical(&pairs);
            pairs.reverse();
            prop_assert_eq!(before, canonical(&pairs));
        }

        #[test]
        fn anything_at_all_can_be_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
