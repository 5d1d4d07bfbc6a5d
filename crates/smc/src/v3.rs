//! Signature V3 (`ACS3-HMAC-SHA256`): the signature travels in the `Authorization` header (SMC API §3.2).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::pairs::canonical;

/// The scheme's name in the `Authorization` header.
pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// The fields of the `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Id of the key that signed.
    pub access_key_id: String,
    /// Names of the signed headers, lower case, in the order in which they were signed.
    pub signed_headers: Vec<String>,
    /// The signature, hexadecimal.
    pub signature: String,
}

/// The header is not of the form `ACS3-HMAC-SHA256 Credential=…,SignedHeaders=a;b,Signature=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Authorization header is not of the form {ALGORITHM} Credential=…,SignedHeaders=a;b,Signature=…"
)]
pub struct MalformedAuthorization;

impl Authorization {
    /// Returns true if the header names this scheme, well formed or not.
    pub fn is_claimed(header: &str) -> bool {
        header.trim_start().starts_with("ACS3-")
    }

    /// Reads the header.
    ///
    /// # Errors
    /// [`MalformedAuthorization`].
    pub fn parse(header: &str) -> Result<Self, MalformedAuthorization> {
        let rest = header
            .trim()
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or(MalformedAuthorization)?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            match part.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => signed_headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => return Err(MalformedAuthorization),
            }
        }
        let present = |value: Option<&str>| {
            value
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .ok_or(MalformedAuthorization)
        };
        Ok(Self {
            access_key_id: present(credential)?,
            signed_headers: present(signed_headers)?
                .split(';')
                .map(str::to_ascii_lowercase)
                .collect(),
            signature: present(signature)?,
        })
    }

    /// The header's text.
    pub fn to_header(&self) -> String {
        format!(
            "{ALGORITHM} Credential={},SignedHeaders={},Signature={}",
            self.access_key_id,
            self.signed_headers.join(";"),
            self.signature
        )
    }
}

/// Everything of a request that is signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path, `/` for this API.
    pub path: &'a str,
    /// The parameters of the query, decoded. Those of a body are covered by its hash.
    pub query: &'a [(String, String)],
    /// All headers, names in any case.
    pub headers: &'a [(String, String)],
    /// Names of the signed headers, lower case.
    pub signed_headers: &'a [String],
    /// Hexadecimal SHA-256 of the body.
    pub body_sha256: &'a str,
}

/// The canonical text of a request.
pub fn canonical_request(request: &Request<'_>) -> String {
    let headers: String = request
        .signed_headers
        .iter()
        .map(|name| format!("{name}:{}\n", header_value(request.headers, name)))
        .collect();
    [
        request.method,
        request.path,
        &canonical(request.query),
        &headers,
        &request.signed_headers.join(";"),
        request.body_sha256,
    ]
    .join("\n")
}

/// Several values of one header are trimmed, sorted and joined with commas.
fn header_value(headers: &[(String, String)], wanted: &str) -> String {
    let mut values: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim())
        .collect();
    values.sort_unstable();
    values.join(",")
}

/// The text that is signed.
pub fn string_to_sign(canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{}", sha256(canonical_request.as_bytes()))
}

/// The signature, hexadecimal.
pub fn sign(secret: &str, string_to_sign: &str) -> String {
    hex::encode(mac(secret, string_to_sign).finalize().into_bytes())
}

/// Returns true if `signature` is right. Takes the same time for every wrong one of the right length.
pub fn verify(secret: &str, string_to_sign: &str, signature: &str) -> bool {
    hex::decode(signature)
        .is_ok_and(|signature| mac(secret, string_to_sign).verify_slice(&signature).is_ok())
}

/// Hexadecimal SHA-256, as `x-acs-content-sha256` has it.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn mac(secret: &str, string_to_sign: &str) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(string_to_sign.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical_of(headers: &[(String, String)], signed: &[String]) -> String {
        canonical_request(&Request {
            method: "POST",
            path: "/",
            query: &[],
            headers,
            signed_headers: signed,
            body_sha256: "00",
        })
    }

    /// Headers, some with several values; lower-case names, and values as they may stand in one.
    fn some_headers() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = prop::sample::select(vec!["host", "accept", "x-acs-action", "x-acs-date"]);
        prop::collection::vec(
            (name.prop_map(str::to_owned), "[!-~]{1,8}( [!-~]{1,4})?"),
            1..8,
        )
    }

    fn names(headers: &[(String, String)]) -> Vec<String> {
        let mut names: Vec<String> = headers.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    proptest! {
        #[test]
        fn order_case_and_blanks_of_headers_are_not_signed(headers in some_headers(), blanks in "[ \t]{0,3}") {
            let signed = names(&headers);
            let disguised: Vec<(String, String)> = headers
                .iter()
                .rev()
                .map(|(name, value)| (name.to_uppercase(), format!("{blanks}{value}{blanks}")))
                .collect();
            prop_assert_eq!(canonical_of(&headers, &signed), canonical_of(&disguised, &signed));
        }

        #[test]
        fn every_signed_value_counts_and_no_other(headers in some_headers(), which in any::<prop::sample::Index>()) {
            let signed = names(&headers);
            let mut changed = headers.clone();
            which.get_mut(&mut changed).1.push('~');
            prop_assert_ne!(canonical_of(&headers, &signed), canonical_of(&changed, &signed));

            let (name, _) = which.get(&headers);
            let others: Vec<String> = signed.iter().filter(|signed| *signed != name).cloned().collect();
            prop_assert_eq!(canonical_of(&headers, &others), canonical_of(&changed, &others));
        }

        #[test]
        fn a_header_that_is_written_reads_back(key in "[A-Za-z0-9.]{1,20}", headers in some_headers(), signature in "[0-9a-f]{1,64}") {
            let written = Authorization {
                access_key_id: key,
                signed_headers: names(&headers),
                signature,
            };
            prop_assert_eq!(Authorization::parse(&written.to_header()), Ok(written));
        }
    }

    #[test]
    fn a_header_reads_back_and_a_broken_one_is_refused() {
        let header = "ACS3-HMAC-SHA256 Credential=ak,SignedHeaders=host;x-acs-date,Signature=0a";
        let read = Authorization::parse(header).unwrap();
        assert_eq!(read.to_header(), header);
        assert_eq!(read.signed_headers, ["host", "x-acs-date"]);
        for broken in [
            "",
            "ACS3-HMAC-SHA256",
            "ACS3-HMAC-SHA256Credential=ak,SignedHeaders=host,Signature=0a",
            "ACS3-HMAC-SHA256 Credential=,SignedHeaders=host,Signature=0a",
            "ACS3-HMAC-SHA256 Credential=ak,Signature=0a",
            "ACS3-HMAC-SM3 Credential=ak,SignedHeaders=host,Signature=0a",
            "ACS3-HMAC-SHA256 Credential=ak,SignedHeaders=host,Signature=0a,Other=1",
        ] {
            assert!(Authorization::parse(broken).is_err(), "{broken:?}");
        }
    }
}
