//! Signature V1 (RPC style, HMAC-SHA1): the signature travels among the parameters (SMC API §3.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use crate::pairs::{canonical, encode};

/// The parameter that carries the signature, and the only one that is not signed.
pub const SIGNATURE: &str = "Signature";

/// The text that is signed, for all parameters of query and body together. `method` is `GET` or `POST` as sent.
pub fn string_to_sign<N: AsRef<str>, V: AsRef<str>>(method: &str, pairs: &[(N, V)]) -> String {
    let signed: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .filter(|(name, _)| *name != SIGNATURE)
        .collect();
    format!("{method}&%2F&{}", encode(&canonical(&signed)))
}

/// The signature, base64.
pub fn sign(secret: &str, string_to_sign: &str) -> String {
    STANDARD.encode(mac(secret, string_to_sign).finalize().into_bytes())
}

/// Returns true if `signature` is right. Takes the same time for every wrong one of the right length.
pub fn verify(secret: &str, string_to_sign: &str, signature: &str) -> bool {
    STANDARD
        .decode(signature)
        .is_ok_and(|signature| mac(secret, string_to_sign).verify_slice(&signature).is_ok())
}

fn mac(secret: &str, string_to_sign: &str) -> Hmac<Sha1> {
    let mut mac = Hmac::<Sha1>::new_from_slice(format!("{secret}&").as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(string_to_sign.as_bytes());
    mac
}
