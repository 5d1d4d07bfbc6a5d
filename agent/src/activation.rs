//! Activation codes: `<secret>.<fingerprint of the deployment's authority>`.
//!
//! The second half lets an agent check whom it is talking to before it gives away the first.

use std::fmt;
use std::str::FromStr;

/// Hexadecimal digits of a SHA-256.
const PIN_LENGTH: usize = 64;

/// An activation code. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct ActivationCode {
    pub(crate) secret: String,
    /// The SHA-256 of the authority's certificate, lower-case hexadecimal.
    pub(crate) pin: String,
}

impl fmt::Debug for ActivationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActivationCode(…)")
    }
}

/// The text is no activation code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no activation code: it has a secret, a dot and 64 hexadecimal digits. Was it copied whole?"
)]
pub struct InvalidActivationCode;

impl FromStr for ActivationCode {
    type Err = InvalidActivationCode;

    fn from_str(text: &str) -> Result<Self, InvalidActivationCode> {
        let (secret, pin) = text.trim().rsplit_once('.').ok_or(InvalidActivationCode)?;
        let is_pin = pin.len() == PIN_LENGTH && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
        if secret.is_empty() || !is_pin {
            return Err(InvalidActivationCode);
        }
        Ok(Self {
            secret: secret.to_owned(),
            pin: pin.to_ascii_lowercase(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_a_secret_and_a_pin_and_does_not_print() {
        let pin = "AB".repeat(32);
        let code: ActivationCode = format!(" secret.{pin}\n").parse().unwrap();
        assert_eq!(code.secret, "secret");
        assert_eq!(code.pin, "ab".repeat(32));
        assert!(!format!("{code:?}").contains("secret"));
        for bad in [
            "",
            "secret",
            "secret.",
            &format!(".{pin}"),
            &format!("secret.{}", &pin[1..]),
            &format!("secret.{}x", &pin[1..]),
        ] {
            assert_eq!(bad.parse::<ActivationCode>(), Err(InvalidActivationCode));
        }
    }
}
