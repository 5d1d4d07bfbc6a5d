//! What a call claims of itself, before anything of it is believed.

use smc::v3::Authorization;

use crate::Refusal;
use crate::request::Incoming;

/// What a call claims of itself. In V1 it is among the parameters, in V3 in the headers; the `Authorization` header decides which.
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

/// Headers that V3 must sign when they are there: what decides about the call.
const SIGNED_IN_V3: [&str; 7] = [
    "host",
    "x-acs-action",
    "x-acs-version",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-content-sha256",
    "x-acs-security-token",
];

impl<'a> Claim<'a> {
    /// Reads it; what is missing is named as the parameter that it would be.
    ///
    /// # Errors
    /// `Missing…` for the first part that is not there, `IncompleteSignature` for a V3 header that can't be read or signs too little.
    pub fn read(incoming: &'a Incoming) -> Result<Self, Refusal> {
        match &incoming.authorization {
            Some(Ok(authorization)) => Self::read_v3(incoming, authorization),
            Some(Err(malformed)) => Err(incomplete(&malformed.to_string())),
            None => Self::read_v1(incoming),
        }
    }

    fn read_v1(incoming: &'a Incoming) -> Result<Self, Refusal> {
        let need = |name| {
            incoming
                .parameter(name)
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
            security_token: incoming.parameter("SecurityToken"),
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
        let is_signed = |name: &str| {
            authorization
                .signed_headers
                .iter()
                .any(|signed| signed == name)
        };
        for name in SIGNED_IN_V3 {
            if incoming.header(name).is_some() && !is_signed(name) {
                return Err(incomplete(&format!("the header {name} must be signed")));
            }
        }
        if incoming.has_body && !is_signed("content-type") {
            return Err(incomplete(
                "the header content-type must be signed when there is a body",
            ));
        }
        Ok(claim)
    }

    /// Whether V1 names the one method and version that there are.
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

fn incomplete(why: &str) -> Refusal {
    Refusal::new(
        "IncompleteSignature",
        format!("The request signature does not conform to Aliyun standards: {why}."),
    )
}
