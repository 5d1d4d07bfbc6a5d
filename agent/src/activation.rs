//! Activation codes: `<secret>.<fingerprint of the deployment's authority>`.
//!
//! The second half lets an agent verify the gateway before it reveals the first.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use crate::Error;

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

impl ActivationCode {
    /// Reads the code from a file, or from standard input if the path is `-`.
    ///
    /// # Errors
    /// [`Error::ReadingCode`] and [`Error::InvalidCode`].
    pub(crate) async fn read(path: &Path) -> Result<Self, Error> {
        let from = path.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            if from == Path::new("-") {
                io::read_to_string(io::stdin())
            } else {
                std::fs::read_to_string(from)
            }
        });
        let text = read
            .await
            .unwrap_or_else(|died| Err(io::Error::other(died)))
            .map_err(|source| Error::ReadingCode {
                path: path.to_owned(),
                source,
            })?;
        text.parse().map_err(|source| Error::InvalidCode {
            path: path.to_owned(),
            source,
        })
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

    #[tokio::test]
    async fn a_file_without_a_code_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("code");
        let error = ActivationCode::read(&path).await.unwrap_err();
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
        std::fs::write(&path, "").unwrap();
        let error = ActivationCode::read(&path).await.unwrap_err();
        assert!(matches!(error, Error::InvalidCode { .. }), "{error}");
        std::fs::write(&path, format!("secret.{}\n", "ab".repeat(32))).unwrap();
        assert_eq!(ActivationCode::read(&path).await.unwrap().secret, "secret");
    }

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
