//! Values that can be read from a certificate.

use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use crate::Error;

/// Returns the DER of the first certificate in a PEM text.
///
/// # Errors
/// [`Error::Read`].
pub fn certificate_der(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(Error::read("the certificate"))
}

/// Returns the SHA-256 of a certificate's DER, as 64 hexadecimal digits. A pin is compared with it.
pub fn fingerprint(certificate_der: &[u8]) -> String {
    hex::encode(digest(&SHA256, certificate_der))
}

/// Returns the common name of a certificate. It identifies the peer only if its chain has been verified.
///
/// # Errors
/// [`Error::Read`] and [`Error::Nameless`].
pub fn common_name_of(certificate_der: &[u8]) -> Result<String, Error> {
    parse(certificate_der)?
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .map(str::to_owned)
        .ok_or(Error::Nameless)
}

/// Returns the public key of a certificate, as DER of a SubjectPublicKeyInfo.
///
/// # Errors
/// [`Error::Read`].
pub fn public_key_der_of(certificate_der: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(parse(certificate_der)?.public_key().raw.to_vec())
}

/// Returns the first moment at which a certificate is valid, and the last.
///
/// # Errors
/// [`Error::Read`].
pub fn validity_of(certificate_der: &[u8]) -> Result<(SystemTime, SystemTime), Error> {
    let certificate = parse(certificate_der)?;
    let validity = certificate.validity();
    let time = |time: ASN1Time| -> Result<SystemTime, Error> {
        let secs =
            u64::try_from(time.timestamp()).map_err(Error::read("the certificate's time"))?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
    };
    Ok((time(validity.not_before)?, time(validity.not_after)?))
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(Error::read("the certificate"))
}
