//! The claims of a call about itself, before any of them is verified.

use axum::http::HeaderName;
use smc::v3::Authorization;

use crate::Refusal;
use crate::request::Incoming;

/// The claims of a call. In V1 they are among the parameters, in V3 in the headers; the `Authorization` header decides
/// which.
#[derive(Debug)]
pub struct Claim<'a> {
    pub action: &'a str,
    pub version: &'a str,
    pub access_key_id: &'a str,
    pub timestamp: &'a str,
    pub nonce: &'a str,
    pub security_token: Option<&'a str>,
    pub(super) signature: Signature<'a>,
}

#[derive(Debug)]
pub(super) enum Signature<'a> {
    V1 {
        method: &'a str,
        version: &'a str,
        signature: &'a str,
    },
    V3(&'a Authorization),
}

impl<'a> Claim<'a> {
    /// Reads the claims; a missing part is named as the V1 parameter.
    ///
    /// # Errors
    /// `Missing…` for the first part that is missing. `InvalidAction.NotFound` for a path that names another operation.
    /// `IncompleteSignature` for a V3 header that can't be read or signs too little.
    pub fn read(incoming: &'a Incoming) -> Result<Self, Refusal> {
        let claim = match &incoming.authorization {
            Some(Ok(authorization)) => Self::read_v3(incoming, authorization)?,
            Some(Err(malformed)) => return Err(incomplete(&malformed.to_string())),
            None => Self::read_v1(incoming)?,
        };
        // V1 does not sign the path: the operation in the path must be the signed one.
        match incoming.action_of_path() {
            Some(named) if named != claim.action => Err(Refusal::unknown_action()),
            _ => Ok(claim),
        }
    }

    fn read_v1(incoming: &'a Incoming) -> Result<Self, Refusal> {
        let need = |name| {
            incoming
                .parameter(name)?
                .ok_or_else(|| Refusal::missing(name))
        };
        Ok(Self {
            action: need("Action")?,
            version: need("Version")?,
            access_key_id: need("AccessKeyId")?,
            signature: Signature::V1 {
                signature: need("Signature")?,
                method: need("SignatureMethod")?,
                version: need("SignatureVersion")?,
            },
            nonce: need("SignatureNonce")?,
            timestamp: need("Timestamp")?,
            security_token: incoming.parameter("SecurityToken")?,
        })
    }

    fn read_v3(incoming: &'a Incoming, authorization: &'a Authorization) -> Result<Self, Refusal> {
        let need = |header, name| {
            incoming
                .header(header)
                .ok_or_else(|| Refusal::missing(name))
        };
        let claim = Self {
            action: need("x-acs-action", "Action")?,
            version: need("x-acs-version", "Version")?,
            access_key_id: &authorization.access_key_id,
            signature: Signature::V3(authorization),
            nonce: need("x-acs-signature-nonce", "SignatureNonce")?,
            timestamp: need("x-acs-date", "Timestamp")?,
            security_token: incoming.header("x-acs-security-token"),
        };
        check_signed(incoming, &authorization.signed_headers)?;
        Ok(claim)
    }

    /// Checks that V1 names the one supported method and version.
    pub(super) fn check_scheme(&self) -> Result<(), Refusal> {
        let Signature::V1 {
            method, version, ..
        } = &self.signature
        else {
            return Ok(());
        };
        if *method != "HMAC-SHA1" {
            return Err(Refusal::new(
                "InvalidSignatureMethod",
                "Specified signature method is not valid.",
            ));
        }
        if *version != "1.0" {
            return Err(Refusal::new(
                "InvalidSignatureVersion",
                "Specified parameter SignatureVersion is not valid.",
            ));
        }
        Ok(())
    }
}

/// Checks that V3 signs everything that decides about the call. This is the host, every `x-acs-` header, each given
/// once, the kind of a body, and the body itself. The hash of the body is in the canonical request, even without the
/// header that carries it (SMC API §3.2).
fn check_signed(incoming: &Incoming, signed: &[String]) -> Result<(), Refusal> {
    let is_signed = |name: &str| signed.iter().any(|signed| signed == name);
    if incoming.header("host").is_none() {
        return Err(incomplete("the header host is missing"));
    }
    let decisive = incoming
        .headers
        .keys()
        .map(HeaderName::as_str)
        .filter(|name| name.starts_with("x-acs-") || *name == "host");
    for name in decisive {
        if !is_signed(name) {
            return Err(incomplete(&format!("the header {name} must be signed")));
        }
        if incoming.headers.get_all(name).iter().nth(1).is_some() {
            return Err(incomplete(&format!("the header {name} is given twice")));
        }
    }
    if incoming.has_body && !is_signed("content-type") {
        return Err(incomplete(
            "the header content-type must be signed when there is a body",
        ));
    }
    match incoming.header("x-acs-content-sha256") {
        Some(hash) if !hash.eq_ignore_ascii_case(&incoming.body_sha256) => Err(incomplete(
            "the header x-acs-content-sha256 is not the SHA-256 of the body",
        )),
        _ => Ok(()),
    }
}

fn incomplete(why: &str) -> Refusal {
    Refusal::new(
        "IncompleteSignature",
        format!("The request signature does not conform to Aliyun standards. Note that {why}."),
    )
}
