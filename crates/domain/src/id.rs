//! Identifiers. Each kind is a type of its own, so that a job's id can't be passed in place of a source's.
//!
//! Form (SMC API §5.1): a prefix, a dash, then `[0-9a-z]`, up to 22 characters in all. Clients treat ids as opaque.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// Length of every generated id, prefix included.
pub const ID_LENGTH: usize = 22;

/// Longest id that is accepted from outside.
const MAX_ID_LENGTH: usize = 64;

/// The text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix}…")]
pub struct InvalidId {
    text: String,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Prefix of every id of this kind.
            pub const PREFIX: &'static str = $prefix;

            /// Generates a new id from the operating system's randomness.
            pub fn generate() -> Self {
                Self(generate(Self::PREFIX))
            }

            /// Returns the id as it is on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text, Self::PREFIX).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// A migration source: one server, known by its agent.
    SourceId, "s-");
id!(
    /// A replication job: one source to one image.
    JobId, "j-");
id!(
    /// An intermediate instance, `TransitionInstanceId` on the wire.
    InstanceId, "i-");
id!(
    /// A delivered image.
    ImageId, "m-");
id!(
    /// An activation code's public name.
    AccessTokenId, "at-");
id!(
    /// Sources that are migrated together.
    WorkgroupId, "w-");
id!(
    /// A user of an account.
    UserId, "u-");

/// Returns true if `text` is an id of any kind of resource.
pub fn is_id(text: &str) -> bool {
    [
        SourceId::PREFIX,
        JobId::PREFIX,
        InstanceId::PREFIX,
        ImageId::PREFIX,
        AccessTokenId::PREFIX,
        WorkgroupId::PREFIX,
        UserId::PREFIX,
    ]
    .into_iter()
    .any(|prefix| parse(text, prefix).is_ok())
}

fn generate(prefix: &str) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    let mut id = String::with_capacity(ID_LENGTH);
    id.push_str(prefix);
    while id.len() < ID_LENGTH {
        id.push(char::from(ALPHABET[random.random_range(0..ALPHABET.len())]));
    }
    id
}

fn parse(text: &str, prefix: &'static str) -> Result<String, InvalidId> {
    let well_formed = text.len() <= MAX_ID_LENGTH
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err(InvalidId {
            text: text.to_owned(),
            prefix,
        })
    }
}

/// An account. It has sixteen digits, like cloud account ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);

impl TenantId {
    /// Generates a new account id.
    pub fn generate() -> Self {
        Self(
            rand::rng()
                .random_range(1_000_000_000_000_000_u64..10_000_000_000_000_000)
                .to_string(),
        )
    }

    /// Returns the id as it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                text: text.to_owned(),
                prefix: "sixteen digits",
            })
        }
    }
}

impl TryFrom<String> for TenantId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> String {
        id.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifier of one API call: an upper-case UUID, `8-4-4-4-12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct RequestId(String);

impl RequestId {
    /// Generates a new, random request id.
    pub fn generate() -> Self {
        let mut bytes: [u8; 16] = rand::rng().random();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        Self(format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        ))
    }

    /// Returns the id as it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_parse_as_their_own_kind_only() {
        let job = JobId::generate();
        assert_eq!(job.as_str().len(), ID_LENGTH);
        assert_eq!(job.as_str().parse::<JobId>(), Ok(job.clone()));
        assert!(job.as_str().parse::<SourceId>().is_err());
        assert!("j-".parse::<JobId>().is_err());
        assert!("j-ABC".parse::<JobId>().is_err());
        assert!("j-../../etc".parse::<JobId>().is_err());
    }

    #[test]
    fn request_ids_are_upper_case_uuids() {
        let id = RequestId::generate();
        let lengths: Vec<usize> = id.as_str().split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(
            id.as_str()
                .bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_digit() || byte.is_ascii_uppercase())
        );
    }
}
