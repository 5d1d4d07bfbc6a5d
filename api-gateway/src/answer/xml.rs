//! The XML rendering of an answer: an element for each field, repeated elements for an array.

use quick_xml::escape::escape;
use serde_json::{Map, Value};

/// Renders the document.
pub fn render(root: &str, fields: &Map<String, Value>) -> String {
    let mut document = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    object(&mut document, root, fields);
    document
}

fn element(document: &mut String, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => object(document, name, fields),
        // An empty list is an empty wrapper: its array adds nothing to it.
        Value::Array(items) => {
            for item in items {
                element(document, name, item);
            }
        }
        Value::Null => {}
        Value::String(text) => leaf(document, name, &escaped(text)),
        Value::Bool(_) | Value::Number(_) => leaf(document, name, &value.to_string()),
    }
}

fn object(document: &mut String, name: &str, fields: &Map<String, Value>) {
    document.push_str(&format!("<{name}>"));
    for (name, value) in fields {
        element(document, name, value);
    }
    document.push_str(&format!("</{name}>"));
}

fn leaf(document: &mut String, name: &str, text: &str) {
    document.push_str(&format!("<{name}>{text}</{name}>"));
}

/// Escapes XML's markup characters, and drops the control characters that XML can't hold at all.
fn escaped(text: &str) -> String {
    let holdable: String = text
        .chars()
        .filter(|character| !character.is_control() || matches!(character, '\t' | '\n' | '\r'))
        .filter(|character| !matches!(character, '\u{fffe}' | '\u{ffff}'))
        .collect();
    escape(holdable.as_str()).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_a_wrapper_with_repeated_items() {
        let fields = json!({
            "Jobs": { "Job": [{ "Name": "a<b&\u{1}", "Progress": 45.5 }, { "Name": "", "Running": true }] },
            "None": { "Item": [] },
            "TotalCount": 2,
        });
        assert_eq!(
            render("ListResponse", fields.as_object().unwrap()),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListResponse><Jobs><Job><Name>a&lt;b&amp;</Name><Progress>45.5</Progress></Job>\
             <Job><Name></Name><Running>true</Running></Job></Jobs><None></None><TotalCount>2</TotalCount></ListResponse>"
        );
    }
}
