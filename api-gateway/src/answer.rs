//! Answers, and how they look on the wire: JSON and XML from one tree.
//!
//! A list is an object that holds an array under the name of its items (`{"DataDisks":{"DataDisk":[…]}}`). SDKs read
//! this form, and it makes XML a plain rendering of the same tree.

mod xml;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use domain::RequestId;
use serde::Serialize;
use serde_json::{Map, Value};
use smc::model;

use crate::Refusal;
use crate::download::FileAnswer;

/// The answer of an operation.
#[derive(Debug)]
pub enum Answer {
    /// An object of fields; the request id is added.
    Fields(Map<String, Value>),
    /// The bytes of a file.
    File(FileAnswer),
}

impl Answer {
    /// Makes an answer of an operation's fields.
    pub fn fields(answer: &impl Serialize) -> Self {
        match model::to_json(answer) {
            Value::Object(fields) => Self::Fields(fields),
            other => unreachable!("an answer is an object, not {other}"),
        }
    }
}

/// The format that the caller wants for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The API's default.
    #[default]
    Json,
    /// With `Format=XML`.
    Xml,
}

impl Format {
    /// Parses the value of `Format`. Some clients send `None` to mean no value, so any other text than XML means JSON.
    pub fn parse(text: &str) -> Self {
        if text.eq_ignore_ascii_case("xml") {
            Self::Xml
        } else {
            Self::Json
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json;charset=utf-8",
            Self::Xml => "text/xml;charset=utf-8",
        })
    }

    fn render(self, root: &str, fields: &Map<String, Value>) -> String {
        match self {
            Self::Json => serde_json::to_string(fields).expect("a tree of JSON values has a text"),
            Self::Xml => xml::render(root, fields),
        }
    }
}

/// Returns the HTTP response of a call that succeeded.
pub fn success(
    action: &str,
    answer: Answer,
    format: Format,
    request_id: &RequestId,
) -> Response<Body> {
    let mut response = match answer {
        Answer::Fields(mut fields) => {
            fields.insert("RequestId".to_owned(), Value::from(request_id.as_str()));
            body(
                StatusCode::OK,
                format,
                format.render(&format!("{action}Response"), &fields),
            )
        }
        Answer::File(file) => file.into_response(),
    };
    name_request(&mut response, request_id);
    response
}

/// Returns the HTTP response of a call that failed.
pub fn failure(
    refusal: &Refusal,
    host: &str,
    format: Format,
    request_id: &RequestId,
) -> Response<Body> {
    let Answer::Fields(fields) = Answer::fields(&model::Error {
        code: refusal.code.to_string(),
        message: refusal.message.clone(),
        request_id: request_id.to_string(),
        host_id: host.to_owned(),
        recommend: String::new(),
        access_denied_detail: refusal.access_denied.as_deref().cloned(),
    }) else {
        unreachable!("an error has fields");
    };
    let mut response = body(refusal.status, format, format.render("Error", &fields));
    name_request(&mut response, request_id);
    if let Some(wait) = refusal.retry_after {
        // Milliseconds, and at least one: SDKs take 0 for "not throttled".
        let milliseconds = wait.as_millis().max(1);
        if let Ok(value) = HeaderValue::from_str(&milliseconds.to_string()) {
            response.headers_mut().insert("x-acs-retry-after", value);
        }
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    }
    response
}

fn body(status: StatusCode, format: Format, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, format.content_type());
    response
}

fn name_request(response: &mut Response<Body>, request_id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert("x-acs-request-id", value);
    }
}
