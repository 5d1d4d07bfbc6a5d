//! A call as it arrived: method, headers, and the parameters of query and body together.

use std::sync::Arc;

use axum::BoxError;
use axum::body::HttpBody as Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use smc::v3::{Authorization, MalformedAuthorization};
use smc::{Pairs, model, v3};

use crate::Refusal;
use crate::answer::Format;
use crate::gateway::Limits;
use crate::operation::Operation;
use crate::origin::Origin;

/// Kinds of bodies that carry parameters.
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A call as it arrived.
#[derive(Debug)]
pub struct Incoming {
    /// Its origin.
    pub origin: Origin,
    /// `GET` or `POST`.
    pub method: String,
    /// Its path: `/`, or that of one operation.
    pub path: String,
    /// Its headers.
    pub headers: Arc<HeaderMap>,
    /// The parameters of its query.
    pub query: Pairs,
    /// All parameters: those of the query, then those of the body.
    pub pairs: Pairs,
    /// Hexadecimal SHA-256 of its body.
    pub body_sha256: String,
    /// True if it has a body.
    pub has_body: bool,
    /// Its `Authorization` header, if that claims signature V3.
    pub authorization: Option<Result<Authorization, MalformedAuthorization>>,
}

impl Incoming {
    /// Reads a request to its end, within the limits. `format` is set as soon as the request's format is known, so that
    /// a refusal has it too.
    ///
    /// # Errors
    /// The method is neither GET nor POST. The path is neither `/` nor an operation's. The body is too large, is cut
    /// off, or claims to be JSON and is no object. A text is not UTF-8.
    pub async fn read<B>(
        request: Request<B>,
        origin: Origin,
        limits: Limits,
        format: &mut Format,
    ) -> Result<Self, Refusal>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (mut head, body) = request.into_parts();
        *format = accepted(&head.headers);
        let query = parameters(head.uri.query().unwrap_or_default().as_bytes(), format);
        if head.method != Method::GET && head.method != Method::POST {
            return Err(Refusal::new(
                "UnsupportedHTTPMethod",
                "This http method is not supported.",
            ));
        }
        let path = match head.uri.path() {
            "" => "/".to_owned(),
            path => path.to_owned(),
        };
        if action_of(&path).is_some_and(|action| Operation::named(action).is_none()) {
            return Err(Refusal::unknown_action());
        }
        let query = query?;
        name_host(&mut head.headers, &head.uri);
        let body = Limited::new(body, limits.body_bytes).collect().await;
        let body = body
            .map_err(|_| {
                Refusal::too_large(&format!(
                    "its body has more than {} bytes, or was cut off",
                    limits.body_bytes
                ))
            })?
            .to_bytes();
        let of_body = match media_type(&head.headers) {
            Some(FORM) => parameters(&body, format)?,
            Some(JSON) if !body.is_empty() => fields(&body)?,
            _ => Pairs::new(),
        };
        let pairs: Pairs = query.iter().cloned().chain(of_body).collect();
        // Texts in Postgres can't hold this character.
        if pairs
            .iter()
            .any(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            return Err(Refusal::new(
                "InvalidParameter",
                "The specified parameter is not valid. It must not contain a NUL character.",
            ));
        }
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
            path,
            headers: Arc::new(head.headers),
            query,
            pairs,
            body_sha256: v3::sha256(&body),
            has_body: !body.is_empty(),
        })
    }

    /// Returns the parameter of this name, if it is given once and not empty.
    ///
    /// # Errors
    /// It is given more than once.
    pub fn parameter(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.pairs.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        if values.next().is_some() {
            return Err(Refusal::invalid(name, "It must be given once."));
        }
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// Returns the operation that the path names; `None` for `/`, at which every operation can be called.
    pub fn action_of_path(&self) -> Option<&str> {
        action_of(&self.path)
    }

    /// Returns a header's text; an empty one counts as missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }
}

/// Parses the parameters of a query or form. `format` is set from the last `Format` among them, even if another
/// parameter can't be read.
fn parameters(text: &[u8], format: &mut Format) -> Result<Pairs, Refusal> {
    let parsed = smc::pairs::parse(text).map_err(|_| -> Pairs {
        text.split(|&byte| byte == b'&')
            .filter_map(|pair| smc::pairs::parse(pair).ok())
            .flatten()
            .collect()
    });
    let (Ok(readable) | Err(readable)) = &parsed;
    let asked = readable
        .iter()
        .rfind(|(name, value)| name == "Format" && !value.is_empty());
    if let Some((_, asked)) = asked {
        *format = Format::parse(asked);
    }
    parsed.map_err(|_| {
        Refusal::new(
            "InvalidParameter",
            "The specified parameter is not valid. It must be UTF-8.",
        )
    })
}

/// Returns the format that a V3 client asks for.
fn accepted(headers: &HeaderMap) -> Format {
    match text_of(headers, "accept") {
        Some("application/xml" | "text/xml") => Format::Xml,
        _ => Format::Json,
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.is_empty())
}

/// Sets the header Host from the URI. HTTP/2 has the host in `:authority`, and its clients sign that.
fn name_host(headers: &mut HeaderMap, uri: &Uri) {
    if headers.contains_key(header::HOST) {
        return;
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.insert(header::HOST, host);
    }
}

/// Returns the operation that a path names.
fn action_of(path: &str) -> Option<&str> {
    path.strip_prefix('/').filter(|action| !action.is_empty())
}

/// Returns the parameters of a request that is a JSON object, in the flat form in which they are signed and checked.
fn fields(body: &[u8]) -> Result<Pairs, Refusal> {
    let request: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
        Refusal::new(
            "InvalidParameter",
            "The specified parameter is not valid. The body must be an object of JSON, or a form.",
        )
    })?;
    let mut pairs = Pairs::new();
    model::flatten(String::new(), &Value::Object(request), &mut pairs);
    Ok(pairs)
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = content_type.split(';').next()?.trim();
    [FORM, JSON]
        .into_iter()
        .find(|known| kind.eq_ignore_ascii_case(known))
}
