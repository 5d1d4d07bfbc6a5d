//! A call as it arrived: method, headers, and the parameters of query and form body together.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use smc::v3::{Authorization, MalformedAuthorization};
use smc::{Pairs, v3};

use crate::Refusal;
use crate::answer::Format;
use crate::gateway::Limits;
use crate::origin::Origin;

/// A call as it arrived.
#[derive(Debug)]
pub struct Incoming {
    /// Where it came from.
    pub origin: Origin,
    /// `GET` or `POST`.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: Arc<HeaderMap>,
    /// The parameters of its query.
    pub query: Pairs,
    /// All parameters: those of the query, then those of the form.
    pub pairs: Pairs,
    /// Hexadecimal SHA-256 of its body.
    pub body_sha256: String,
    /// Whether it has a body.
    pub has_body: bool,
    /// Its `Authorization` header, if that claims signature V3.
    pub authorization: Option<Result<Authorization, MalformedAuthorization>>,
}

impl Incoming {
    /// Reads a request to its end, within the limits.
    ///
    /// # Errors
    /// Another method than GET and POST, another path than `/`, a body that is too large or is cut off, text that is not UTF-8.
    pub async fn read(
        request: Request<Body>,
        origin: Origin,
        limits: Limits,
    ) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        if head.method != Method::GET && head.method != Method::POST {
            return Err(Refusal::new(
                "UnsupportedHTTPMethod",
                "This http method is not supported.",
            ));
        }
        if head.uri.path() != "/" && !head.uri.path().is_empty() {
            return Err(Refusal::unknown_action());
        }
        let not_utf8 = |_| Refusal::new("InvalidParameter", "A parameter is not UTF-8.");
        let query =
            smc::pairs::parse(head.uri.query().unwrap_or_default().as_bytes()).map_err(not_utf8)?;
        let body = Limited::new(body, limits.body_bytes).collect().await;
        let body = body
            .map_err(|_| {
                Refusal::too_large(&format!(
                    "its body has more than {} bytes, or was cut off",
                    limits.body_bytes
                ))
            })?
            .to_bytes();
        let form = if is_form(&head.headers) {
            smc::pairs::parse(&body).map_err(not_utf8)?
        } else {
            Pairs::new()
        };
        let pairs: Pairs = query.iter().cloned().chain(form).collect();
        if pairs.len() > limits.parameters {
            return Err(Refusal::too_large(&format!(
                "it has more than {} parameters",
                limits.parameters
            )));
        }
        let authorization = head
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .filter(|value| Authorization::is_claimed(value))
            .map(Authorization::parse);
        Ok(Self {
            origin,
            authorization,
            method: head.method.to_string(),
            path: "/".to_owned(),
            headers: Arc::new(head.headers),
            query,
            pairs,
            body_sha256: v3::sha256(&body),
            has_body: !body.is_empty(),
        })
    }

    /// The first parameter of this name that is not empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A header's text; empty is as good as none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
    }

    /// How the answer is to look: `Format`, or else what V3 clients say in `Accept`.
    pub fn format(&self) -> Format {
        if let Some(format) = self.parameter("Format") {
            return Format::parse(format);
        }
        match self.header("accept") {
            Some("application/xml" | "text/xml") => Format::Xml,
            _ => Format::Json,
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| {
            kind.trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}
