//! `docs/api.md`, made from the types of requests and answers.

use std::fmt::Write as _;

use domain::FailureCode;

use crate::arguments::{Parameter, Rule};
use crate::error_codes::{COMMON, CommonError};
use crate::operation::{Effect, Operation};
use crate::operations;

const HEAD: &str = "\
# The API

<!-- Made from the types of requests and answers in crates/smc/src/model. UPDATE=1 cargo nextest run -p api-gateway reference writes it. -->

SMC, version 2019-06-01: `http://<endpoint>/?Action=…&Version=2019-06-01&…`, GET or POST, parameters in the query or in a form body,
signed V1 (HMAC-SHA1) or V3 (ACS3-HMAC-SHA256). Each operation can be called at `/` and its name as well, with its request as an object of
JSON in the body, where `Tag.1.Key` is `{\"Tag\":[{\"Key\":…}]}`: that is what clients do which are generated from
[`openapi.json`](openapi.json), or from `/openapi.json` of a gateway. Answers are JSON, or XML with `Format=XML`. Each has a `RequestId`, which is also in the
header `x-acs-request-id` and in the gateway's log. Lists are wrapped twice: `{\"Images\":{\"Image\":[…]}}`. Times are UTC, `YYYY-MM-DDThh:mm:ssZ`.

An error has an HTTP status of its own and the fields `Code`, `Message`, `RequestId`, `HostId`, `Recommend`. Unknown parameters are
ignored. An empty parameter counts as not given. Every operation can answer with:

| code | HTTP | when |
|---|---|---|
| Missing… | 400 | a mandatory parameter is not given |
| Invalid… | 400 | a parameter breaks its rule, is given twice, or asks for what is not offered |
";

const FAILURES: &str = "
A job or a source that has failed says so in `ErrorCode`, and in `error_msg` of its `StatusInfo` what to do. The codes stay as they are:

| ErrorCode | when |
|---|---|
";

/// Returns the names of all operations.
pub fn operation_names() -> impl Iterator<Item = &'static str> {
    operations::all().iter().map(|operation| operation.name)
}

/// Returns the parameters that name something by its id, each after its operation; without those that are not offered.
pub fn ids() -> impl Iterator<Item = (&'static str, &'static str)> {
    operations::all().iter().flat_map(|operation| {
        operation
            .parameters
            .iter()
            .filter(|parameter| !matches!(parameter.rule, Rule::NotOffered(_) | Rule::Only(..)))
            .filter(|parameter| parameter.name.ends_with("Id") || parameter.name.ends_with("Id.N"))
            .map(|parameter| (operation.name, parameter.name.as_str()))
    })
}

/// Returns the fields of all answers: path and type, as the reference has them.
pub fn fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    operations::all()
        .iter()
        .flat_map(|operation| &operation.fields)
        .map(|field| (field.path.as_str(), field.kind))
}

/// Renders the page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for CommonError { code, status, when } in COMMON {
        line(&mut page, format_args!("| {code} | {status} | {when} |"));
    }
    page.push_str(FAILURES);
    for code in FailureCode::ALL {
        line(
            &mut page,
            format_args!("| {code} | {} |", code.meaning().trim()),
        );
    }
    page.push_str("\n## Operations\n\n");
    for operation in operations::all() {
        line(
            &mut page,
            format_args!(
                "- [{0}](#{1})",
                operation.name,
                operation.name.to_lowercase()
            ),
        );
    }
    for operation in operations::all() {
        section(&mut page, operation);
    }
    page
}

fn section(page: &mut String, operation: &Operation) {
    line(
        page,
        format_args!("\n## {}\n\n{}", operation.name, operation.summary),
    );
    let (refused, offered): (Vec<&Parameter>, Vec<&Parameter>) = operation
        .parameters
        .iter()
        .partition(|parameter| matches!(parameter.rule, Rule::NotOffered(_)));
    line(
        page,
        format_args!("\n| parameter | required | value | meaning |\n|---|---|---|---|"),
    );
    for parameter in offered {
        let required = if parameter.is_required { "yes" } else { "no" };
        line(
            page,
            format_args!(
                "| {} | {required} | {} | {} |",
                parameter.name,
                value(parameter),
                parameter.meaning
            ),
        );
    }
    if !refused.is_empty() {
        let names: Vec<&str> = refused
            .iter()
            .map(|parameter| parameter.name.as_str())
            .collect();
        line(
            page,
            format_args!(
                "\nRefused, because it is not offered: {}.",
                names.join(", ")
            ),
        );
    }
    if operation.answers_file() {
        line(
            page,
            format_args!(
                "\nIt answers with the bytes of a file; an error is one as of every call."
            ),
        );
    } else if !operation.fields.is_empty() {
        line(
            page,
            format_args!("\n| field of the answer | type | meaning |\n|---|---|---|"),
        );
        for field in &operation.fields {
            line(
                page,
                format_args!("| {} | {} | {} |", field.path, field.kind, field.meaning),
            );
        }
    }
    let touched: Vec<String> = operation
        .resources
        .iter()
        .map(|resource| {
            let kind = match resource.kind_by {
                Some(parameter) => format!("${parameter}"),
                None => resource.kind.to_owned(),
            };
            match resource.named_by {
                Some(parameter) => format!("`{kind}/${parameter}`"),
                None => format!("`{kind}/*`"),
            }
        })
        .collect();
    line(
        page,
        format_args!(
            "\nA RAM user needs `smc:{}` on {}.{}",
            operation.name,
            touched.join(" and "),
            match operation.effect {
                Effect::Reads => "",
                Effect::Writes => " The call is audited.",
            }
        ),
    );
    if !operation.refusals.is_empty() {
        line(
            page,
            format_args!("\nIts own errors: {}.", operation.refusals.join(", ")),
        );
    }
}

fn value(parameter: &Parameter) -> String {
    let value = match &parameter.rule {
        Rule::Text(most) => format!("text, at most {most} characters"),
        Rule::Name => "name: 2–128 letters, digits, `:` `_` `-`, a letter first".to_owned(),
        Rule::SourceDescription => "text, at most 256 characters, may be empty, no URL".to_owned(),
        Rule::Token(most) => format!("at most {most} ASCII characters"),
        Rule::Integer(least, most) => format!("integer, {least}–{most}"),
        Rule::SystemDiskGib => "integer, 20–500, or to 2048 if the operator allows it".to_owned(),
        Rule::Boolean => "`true` or `false`".to_owned(),
        Rule::Time => "time".to_owned(),
        Rule::OneOf(texts) => texts.join(", "),
        Rule::OneOfAnyCase(texts) => {
            format!("{}, in any case", texts.join(", "))
        }
        Rule::ReplicationParameters => "JSON text".to_owned(),
        Rule::WorkgroupName => "2–64 letters, digits, `.` `:` `_` `-`, a letter first".to_owned(),
        Rule::WorkgroupDescription => "2–256 characters, no URL".to_owned(),
        Rule::TagKey => {
            "1–128 characters, not beginning with `aliyun` or `acs:`, no URL".to_owned()
        }
        Rule::TagValue => "at most 128 characters".to_owned(),
        Rule::Only(value, _) => format!("only `{value}`"),
        Rule::NotOffered(_) => "not offered".to_owned(),
    };
    if parameter.most > 0 {
        format!("{value}; N from 1 to {}", parameter.most)
    } else {
        value
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a text can't fail");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_is_named_once() {
        let names: BTreeSet<&str> = operations::all()
            .iter()
            .map(|operation| operation.name)
            .collect();
        assert_eq!(names.len(), operations::all().len());
    }

    /// `UPDATE=1` writes the page.
    #[test]
    fn the_reference_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
        let wanted = markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &wanted).expect("docs/ can be written");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/api.md is stale: UPDATE=1 cargo nextest run -p api-gateway reference writes it"
        );
    }
}
