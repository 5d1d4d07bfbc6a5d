//! The identity of a side, and the TLS that both transports use: mutual, by the run's own authority, version 1.3 only.
//!
//! A run's authority signs for its worker, its receiver and its agent. The data port takes the agent's name and no
//! other; see [`is_named`].

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::{ALPN, TransportError};

/// A side's certificate and key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate of the run's authority.
    pub authority_pem: String,
    /// This side's certificate chain.
    pub certificate_pem: String,
    /// This side's key.
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

type Parts = (
    RootCertStore,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
);

impl Identity {
    fn parts(&self) -> Result<Parts, TransportError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority_pem.as_bytes()) {
            let certificate =
                certificate.map_err(|_| unusable(&"the authority's certificate is no PEM"))?;
            roots
                .add(certificate)
                .map_err(|_| unusable(&"the authority's certificate is malformed"))?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| unusable(&"the certificate is no PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| unusable(&"the key is no PEM"))?;
        Ok((roots, chain, key))
    }

    /// The receiver's side of the handshake, which only `sender` gets through.
    pub(crate) fn server_tls(&self, sender: &str) -> Result<ServerConfig, TransportError> {
        let (roots, chain, key) = self.parts()?;
        let provider = Arc::new(provider());
        let by_authority =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(&error))?;
        let sender = sender_name(sender)?;
        let verifier = Arc::new(OnlySender {
            by_authority,
            sender,
        });
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Nobody resumes a session, and over TCP a ticket that the sender never reads would turn its goodbye into a
        // reset.
        tls.send_tls13_tickets = 0;
        Ok(tls)
    }

    /// The sender's side of the handshake.
    pub(crate) fn client_tls(&self) -> Result<ClientConfig, TransportError> {
        let (roots, chain, key) = self.parts()?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(tls)
    }
}

fn sender_name(name: &str) -> Result<ServerName<'static>, TransportError> {
    ServerName::try_from(name.to_owned()).map_err(|error| unusable(&error))
}

/// Returns true if the certificate (DER) has `name` among its subject alternative names. Says who the peer is only if
/// the certificate's chain has been verified.
pub fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    ServerName::try_from(name).is_ok_and(|name| has_name(certificate, &name))
}

fn has_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(certificate)
        .and_then(|certificate| verify_server_name(&certificate, name))
        .is_ok()
}

/// Takes the sender's certificate, and nobody else's whom the run's authority has signed for.
#[derive(Debug)]
struct OnlySender {
    by_authority: Arc<dyn ClientCertVerifier>,
    sender: ServerName<'static>,
}

impl ClientCertVerifier for OnlySender {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .by_authority
            .verify_client_cert(end_entity, intermediates, now)?;
        if has_name(end_entity, &self.sender) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

pub(crate) fn unusable(error: &dyn std::fmt::Display) -> TransportError {
    TransportError::Identity(error.to_string())
}

/// The provider with AES-128-GCM in front: it costs the least where the processor has AES, as every server's has.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    }
}
