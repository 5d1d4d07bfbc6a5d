//! A client that signs its calls.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::model::{self, Answered, File, Operation};
use crate::pairs::canonical;
use crate::{API_VERSION, CallError, Download, Pairs, Refusal, nonce, timestamp, v1, v3};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer, and in a download for the next bytes.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

const FORM: &str = "application/x-www-form-urlencoded";

/// An access key. Does not print its secret.
#[derive(Clone)]
pub struct Credentials {
    /// The key's public name.
    pub access_key_id: String,
    /// The secret that calls are signed with.
    pub access_key_secret: String,
    /// The token that a temporary key needs besides its secret.
    pub security_token: Option<String>,
}

impl Credentials {
    /// A key that lasts.
    pub fn new(access_key_id: impl Into<String>, access_key_secret: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            access_key_secret: access_key_secret.into(),
            security_token: None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// The signature scheme of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignatureVersion {
    /// HMAC-SHA1 among the parameters.
    #[default]
    V1,
    /// `ACS3-HMAC-SHA256` in the headers.
    V3,
}

/// Reason for which no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidClient {
    /// The endpoint is no address that can be called.
    #[error("{endpoint:?} is not an endpoint: give it as https://host:port or http://host:port")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
    },
    /// The authority's certificate can't be read.
    #[error("the certificate of the endpoint's authority is no PEM text")]
    Authority(#[source] reqwest::Error),
    /// This machine's certificates can't be read.
    #[error("HTTPS can't be spoken: the machine's certificate authorities can't be read")]
    Tls(#[source] reqwest::Error),
}

/// Makes signed calls. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Url,
    credentials: Credentials,
    region_id: String,
    signature: SignatureVersion,
}

impl Client {
    /// A client for the gateway at `endpoint` (`https://host:port`, `http://host:port`, or `host:port` for the latter),
    /// signing V1. `region_id` goes with every call; without one, the gateway takes its own.
    ///
    /// # Errors
    /// [`InvalidClient`].
    pub fn new(
        endpoint: &str,
        credentials: Credentials,
        region_id: impl Into<String>,
    ) -> Result<Self, InvalidClient> {
        Self::trusting(endpoint, credentials, region_id, None)
    }

    /// [`Client::new`] for an endpoint whose certificate comes from the authority with this certificate, in PEM.
    /// Without one, the certificate must come from an authority that this machine trusts.
    ///
    /// # Errors
    /// [`InvalidClient`].
    pub fn trusting(
        endpoint: &str,
        credentials: Credentials,
        region_id: impl Into<String>,
        authority_pem: Option<&str>,
    ) -> Result<Self, InvalidClient> {
        let invalid = || InvalidClient::Endpoint {
            endpoint: endpoint.to_owned(),
        };
        let text = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("http://{endpoint}")
        };
        let url = Url::parse(&text).map_err(|_| invalid())?;
        if !["http", "https"].contains(&url.scheme()) || url.host().is_none() || url.path() != "/" {
            return Err(invalid());
        }
        // A process that has installed its cryptography keeps it.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("wherry/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = authority_pem {
            let authority = reqwest::Certificate::from_pem(pem.as_bytes());
            http = http.tls_certs_only([authority.map_err(InvalidClient::Authority)?]);
        } else if url.scheme() == "http" {
            // Reading what the machine trusts takes time that plain HTTP does not need.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(InvalidClient::Tls)?;
        Ok(Self {
            http,
            endpoint: url,
            credentials,
            region_id: region_id.into(),
            signature: SignatureVersion::V1,
        })
    }

    /// The same client, signing with `version`.
    #[must_use]
    pub fn signing(mut self, version: SignatureVersion) -> Self {
        self.signature = version;
        self
    }

    /// The endpoint that calls go to.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The region that goes with every call.
    pub fn region_id(&self) -> &str {
        &self.region_id
    }

    /// Calls an operation. The client's region is added when `request` has none.
    ///
    /// # Errors
    /// See [`CallError`]. Nothing is tried twice: only the caller knows whether that is safe.
    pub async fn call<O>(&self, request: &O) -> Result<Answered<O::Answer>, CallError>
    where
        O: Operation<Answer: DeserializeOwned>,
    {
        self.answer_of(O::ACTION, model::pairs(request)).await
    }

    /// Calls the operation of this name with flat parameters, and returns the answer's JSON object: for callers that
    /// know neither before they run.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn call_by_name<N: AsRef<str>, V: AsRef<str>>(
        &self,
        action: &str,
        parameters: &[(N, V)],
    ) -> Result<Value, CallError> {
        self.answer_of(action, owned(parameters)).await
    }

    /// Calls an operation whose answer is a stream of bytes, from `offset_bytes` on.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn download<O: Operation<Answer = File>>(
        &self,
        request: &O,
        offset_bytes: u64,
    ) -> Result<Download, CallError> {
        let mut request = self.request(O::ACTION, model::pairs(request));
        if offset_bytes > 0 {
            request = request.header("range", format!("bytes={offset_bytes}-"));
        }
        Ok(Download {
            response: self.send(request).await?,
            endpoint: self.endpoint.clone(),
        })
    }

    async fn answer_of<A: DeserializeOwned>(
        &self,
        action: &str,
        parameters: Pairs,
    ) -> Result<A, CallError> {
        let response = self.send(self.request(action, parameters)).await?;
        let http_status = response.status().as_u16();
        let body = response
            .bytes()
            .await
            .map_err(|source| CallError::from_http(&self.endpoint, source))?;
        serde_json::from_slice(&body).map_err(|_| self.not_smc(http_status))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CallError> {
        let response = request
            .send()
            .await
            .map_err(|source| CallError::from_http(&self.endpoint, source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let http_status = response.status().as_u16();
        let error: model::Error = response
            .json()
            .await
            .map_err(|_| self.not_smc(http_status))?;
        Err(Refusal {
            code: error.code,
            message: error.message,
            request_id: error.request_id,
            http_status,
        }
        .into())
    }

    fn not_smc(&self, http_status: u16) -> CallError {
        CallError::NotSmc {
            endpoint: self.endpoint.clone(),
            http_status,
        }
    }

    fn request(&self, action: &str, mut parameters: Pairs) -> reqwest::RequestBuilder {
        let has_region = parameters.iter().any(|(name, _)| name == "RegionId");
        if !has_region && !self.region_id.is_empty() {
            parameters.push(("RegionId".to_owned(), self.region_id.clone()));
        }
        match self.signature {
            SignatureVersion::V1 => self.request_v1(action, parameters),
            SignatureVersion::V3 => self.request_v3(action, &parameters),
        }
    }

    /// Everything in a form body: long lists don't fit into every proxy's query.
    fn request_v1(&self, action: &str, mut parameters: Pairs) -> reqwest::RequestBuilder {
        let common = [
            ("Action", action),
            ("Version", API_VERSION),
            ("Format", "JSON"),
            ("AccessKeyId", &self.credentials.access_key_id),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &nonce()),
            ("Timestamp", &timestamp()),
        ];
        parameters.extend(owned(&common));
        if let Some(token) = &self.credentials.security_token {
            parameters.push(("SecurityToken".to_owned(), token.clone()));
        }
        let text = v1::string_to_sign("POST", &parameters);
        let signature = v1::sign(&self.credentials.access_key_secret, &text);
        parameters.push((v1::SIGNATURE.to_owned(), signature));
        self.http
            .post(self.endpoint.clone())
            .header("content-type", FORM)
            .body(canonical(&parameters))
    }

    fn request_v3(&self, action: &str, parameters: &Pairs) -> reqwest::RequestBuilder {
        let body = canonical(parameters);
        let body_sha256 = v3::sha256(body.as_bytes());
        let mut headers = owned(&[
            ("content-type", FORM),
            ("host", &self.host()),
            ("x-acs-action", action),
            ("x-acs-content-sha256", &body_sha256),
            ("x-acs-date", &timestamp()),
            ("x-acs-signature-nonce", &nonce()),
            ("x-acs-version", API_VERSION),
        ]);
        if let Some(token) = &self.credentials.security_token {
            headers.push(("x-acs-security-token".to_owned(), token.clone()));
            headers.sort();
        }
        let signed_headers: Vec<String> = headers.iter().map(|(name, _)| name.clone()).collect();
        let canonical_request = v3::canonical_request(&v3::Request {
            method: "POST",
            path: "/",
            query: &[],
            headers: &headers,
            signed_headers: &signed_headers,
            body_sha256: &body_sha256,
        });
        let text = v3::string_to_sign(&canonical_request);
        let authorization = v3::Authorization {
            access_key_id: self.credentials.access_key_id.clone(),
            signed_headers,
            signature: v3::sign(&self.credentials.access_key_secret, &text),
        };
        headers
            .into_iter()
            .fold(
                self.http.post(self.endpoint.clone()),
                |request, (name, value)| request.header(name, value),
            )
            .header("authorization", authorization.to_header())
            .header("accept", "application/json")
            .body(body)
    }

    /// The `Host` header of the endpoint: the port only when it is not the scheme's own.
    fn host(&self) -> String {
        let host = self.endpoint.host_str().unwrap_or_default();
        match self.endpoint.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

fn owned<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Pairs {
    pairs
        .iter()
        .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Result<Client, InvalidClient> {
        Client::new(endpoint, Credentials::new("ak", "sk"), "local")
    }

    #[test]
    fn endpoints_are_taken_with_and_without_a_scheme() {
        assert_eq!(
            client("127.0.0.1:8080").unwrap().endpoint().as_str(),
            "http://127.0.0.1:8080/"
        );
        assert_eq!(client("http://gateway").unwrap().host(), "gateway");
        assert_eq!(client("https://gateway").unwrap().host(), "gateway");
        for bad in ["", "ftp://x", "http://", "http://x/y", "a b"] {
            assert!(client(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_secret_does_not_print() {
        let printed = format!("{:?}", client("http://x").unwrap());
        assert!(
            printed.contains("ak") && !printed.contains("sk"),
            "{printed}"
        );
    }
}
