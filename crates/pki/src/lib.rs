//! Certificate authorities and certificates: the deployment's, which agents trust from their first contact on, and each
//! run's. A run's authority lives as long as the run and certifies only its receiver, its worker and its agent.
//!
//! Keys are ECDSA P-256. A certificate names its owner in the common name and in the subject alternative names. A
//! server's certificate has all its names and addresses there. A certificate ends with its authority, and begins an
//! hour before it was made, so that a peer whose clock is behind accepts it.

mod authority;
mod certificate;
mod key;

pub use authority::{
    AGENT_VALIDITY, Authority, DEPLOYMENT_VALIDITY, Identity, RUN_VALIDITY, public_key_of_request,
};
pub use certificate::{
    certificate_der, common_name_of, fingerprint, public_key_der_of, validity_of,
};
pub use key::KeyPair;

/// Errors of making or reading keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key could not be generated or used to sign.
    #[error("can't make {what}")]
    Make {
        /// Such as "the certificate of localhost".
        what: String,
        /// The library's error.
        #[source]
        source: rcgen::Error,
    },
    /// A PEM or DER text can't be parsed as the expected kind.
    #[error("can't read {what}")]
    Read {
        /// Such as "the authority's key".
        what: &'static str,
        /// The library's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate request is not signed with the key that it names: its sender does not have the key.
    #[error("the certificate request is not signed with its own key")]
    NoPossession,
    /// The certificate has no common name.
    #[error("the certificate has no common name")]
    Nameless,
}

impl Error {
    pub(crate) fn make(what: impl Into<String>) -> impl FnOnce(rcgen::Error) -> Self {
        let what = what.into();
        |source| Self::Make { what, source }
    }

    pub(crate) fn read<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Read {
            what,
            source: source.into(),
        }
    }
}
