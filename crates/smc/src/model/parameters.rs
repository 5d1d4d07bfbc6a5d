//! The flat form of requests: `Tag.1.Key` and its value.

use serde::Serialize;
use serde_json::Value;

use crate::Pairs;

/// The parameters of a request. Lists count from 1; what has no value is left out.
///
/// # Panics
/// If `request` has no form in JSON, which no type of this module can bring about.
pub fn pairs(request: &impl Serialize) -> Pairs {
    let mut pairs = Pairs::new();
    let tree = serde_json::to_value(request).expect("a type of the API has a form in JSON");
    flatten(String::new(), &tree, &mut pairs);
    pairs
}

/// Adds the parameters of a JSON tree, whose place is `name`.
pub fn flatten(name: String, tree: &Value, pairs: &mut Pairs) {
    let below = |part: &str| {
        if name.is_empty() {
            part.to_owned()
        } else {
            format!("{name}.{part}")
        }
    };
    match tree {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(below(field), value, pairs);
            }
        }
        Value::Array(items) => {
            for (number, item) in (1..).zip(items) {
                flatten(below(&usize::to_string(&number)), item, pairs);
            }
        }
        Value::String(text) => pairs.push((name, text.clone())),
        Value::Bool(_) | Value::Number(_) => pairs.push((name, tree.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn a_request_is_flat_on_the_wire() {
        let request = CreateReplicationJob {
            source_id: "s-1".to_owned(),
            system_disk_size: Some(40),
            run_once: Some(false),
            net_mode: Some(NetMode::Private),
            data_disk: Some(vec![DataDiskSize {
                index: Some(1),
                size: Some(20),
            }]),
            tag: Some(vec![NewTag {
                key: Some("a".to_owned()),
                value: None,
            }]),
            ..CreateReplicationJob::default()
        };
        let expected = [
            ("DataDisk.1.Index", "1"),
            ("DataDisk.1.Size", "20"),
            ("NetMode", "2"),
            ("RunOnce", "false"),
            ("SourceId", "s-1"),
            ("SystemDiskSize", "40"),
            ("Tag.1.Key", "a"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs(&request), expected);
        let list = DescribeReplicationJobs {
            job_id: Some(vec!["j-1".to_owned(), "j-2".to_owned()]),
            ..DescribeReplicationJobs::default()
        };
        let names: Vec<String> = pairs(&list).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["JobId.1", "JobId.2"]);
    }
}
