//! First contact: a server is trusted because its chain ends in the authority whose fingerprint came with the
//! activation code.
//!
//! The fingerprint only selects the root to trust. The usual code checks everything else. It checks that the chain
//! leads to that root, for this name and at this time, and that the server has the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Trusts servers of the pinned authority.
#[derive(Debug)]
pub(super) struct PinVerifier {
    /// Lower-case hexadecimal SHA-256 of the authority's certificate.
    pin: String,
    provider: Arc<CryptoProvider>,
    has_refused: AtomicBool,
}

impl PinVerifier {
    pub fn new(pin: &str) -> Self {
        Self {
            pin: pin.to_owned(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            has_refused: AtomicBool::new(false),
        }
    }

    /// Returns true if a server was refused because it does not belong to the pinned authority.
    pub fn has_refused(&self) -> bool {
        self.has_refused.load(Ordering::Acquire)
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = chain
            .iter()
            .find(|certificate| pki::fingerprint(certificate) == self.pin)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, chain, server_name, ocsp_response, now)
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verify(end_entity, intermediates, server_name, ocsp_response, now);
        if matches!(
            verified,
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            ))
        ) {
            self.has_refused.store(true, Ordering::Release);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use pki::{Authority, DEPLOYMENT_VALIDITY, Identity};

    use super::*;

    fn authority() -> Authority {
        Authority::generate("Wherry deployment", DEPLOYMENT_VALIDITY).unwrap()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        pki::certificate_der(pem).unwrap()
    }

    fn server(authority: &Authority) -> Identity {
        authority.issue_server(&["localhost".to_owned()]).unwrap()
    }

    fn verify(
        verifier: &PinVerifier,
        leaf: &Identity,
        chain: &[&Authority],
        name: &'static str,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = chain
            .iter()
            .map(|authority| der(authority.certificate_pem()))
            .collect();
        verifier.verify_server_cert(
            &der(&leaf.certificate_pem),
            &chain,
            &ServerName::try_from(name).unwrap(),
            &[],
            UnixTime::now(),
        )
    }

    #[test]
    fn only_a_server_that_the_pinned_authority_has_signed_is_trusted() {
        let (ours, other) = (authority(), authority());
        let verifier = PinVerifier::new(&ours.fingerprint());
        assert!(verify(&verifier, &server(&ours), &[&ours], "localhost").is_ok());
        assert!(!verifier.has_refused());

        assert!(verify(&verifier, &server(&other), &[&other], "localhost").is_err());
        assert!(verifier.has_refused());

        // A server that presents our authority's certificate without being signed by it is an impostor.
        let verifier = PinVerifier::new(&ours.fingerprint());
        assert!(verify(&verifier, &server(&other), &[&ours], "localhost").is_err());
        assert!(verify(&verifier, &server(&other), &[&other, &ours], "localhost").is_err());
        assert!(verifier.has_refused());
    }

    #[test]
    fn a_clock_that_is_two_hours_behind_is_blamed_and_nobody_is_an_impostor() {
        use std::time::{Duration, SystemTime, UNIX_EPOCH};

        let ours = authority();
        let verifier = PinVerifier::new(&ours.fingerprint());
        let behind = SystemTime::now() - Duration::from_secs(7200);
        let refused = verifier.verify_server_cert(
            &der(&server(&ours).certificate_pem),
            &[der(ours.certificate_pem())],
            &ServerName::try_from("localhost").unwrap(),
            &[],
            UnixTime::since_unix_epoch(behind.duration_since(UNIX_EPOCH).unwrap()),
        );
        let told = super::super::clock::blamed(&refused.unwrap_err()).expect("the clock is blamed");
        assert!(
            told.contains("the clock of this server is at least 1 h 0 min behind")
                || told.contains("the clock of this server is at least 59 min"),
            "{told}"
        );
        assert!(!verifier.has_refused());
    }

    #[test]
    fn the_name_counts_as_well_but_a_wrong_one_is_no_impostor() {
        let ours = authority();
        let verifier = PinVerifier::new(&ours.fingerprint());
        assert!(verify(&verifier, &server(&ours), &[&ours], "gateway.example").is_err());
        assert!(!verifier.has_refused());
    }
}
