//! A private key and the values derived from it.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};

use crate::Error;

/// An ECDSA P-256 key pair. Does not print.
pub struct KeyPair(pub(crate) rcgen::KeyPair);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(…)")
    }
}

impl KeyPair {
    /// Generates a new key.
    ///
    /// # Errors
    /// [`Error::Make`] if the operating system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(Error::make("a key"))
    }

    /// Reads the key of a PKCS #8 PEM.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        rcgen::KeyPair::from_pem(pem)
            .map(Self)
            .map_err(Error::read("the private key"))
    }

    /// Returns the private key as PKCS #8 PEM.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Returns the public key as DER of a SubjectPublicKeyInfo.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// Returns a certificate request (PEM) signed with this key, which proves that its sender has the key.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn certificate_request(&self, common_name: &str) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name);
        params
            .serialize_request(&self.0)
            .and_then(|request| request.pem())
            .map_err(Error::make("a certificate request"))
    }
}

pub(crate) fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
