//! The SMC wire: how calls are encoded and signed, and a client that signs them.
//!
//! The gateway verifies with the functions with which the client signs, so the two can't disagree. A server must accept
//! more than our client sends: four encodings of the same text reach it. It therefore decodes first ([`pairs::parse`])
//! and encodes again by RFC 3986 ([`pairs::canonical`]) before it signs.

pub mod pairs;
pub mod v1;
pub mod v3;

pub mod model;

mod client;
mod download;
mod error;

pub use client::{Client, Credentials, InvalidClient, SignatureVersion};
pub use download::Download;
pub use error::{CallError, Refusal};
pub use pairs::Pairs;

/// The version of the API that everything here speaks.
pub const API_VERSION: &str = "2019-06-01";

/// A new nonce: 32 hexadecimal digits.
pub fn nonce() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// The current time as signatures write it: `YYYY-MM-DDThh:mm:ssZ`.
pub fn timestamp() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
