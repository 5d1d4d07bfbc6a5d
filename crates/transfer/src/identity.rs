//! Who a side is, and the TLS that both carriers use: mutual, by the run's own authority, version 1.3 only.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use crate::TransferError;
use crate::protocol::ALPN;

/// What one side proves itself with, as PEM.
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
    fn parts(&self) -> Result<Parts, TransferError> {
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

    /// The receiver's side of the handshake.
    pub(crate) fn server_tls(&self) -> Result<ServerConfig, TransferError> {
        let (roots, chain, key) = self.parts()?;
        let provider = Arc::new(provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(&error))?;
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Nobody resumes a session, and over TCP a ticket that the sender never reads would turn its goodbye into a reset.
        tls.send_tls13_tickets = 0;
        Ok(tls)
    }

    /// The sender's side of the handshake.
    pub(crate) fn client_tls(&self) -> Result<ClientConfig, TransferError> {
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

pub(crate) fn unusable(error: &dyn std::fmt::Display) -> TransferError {
    TransferError::Identity(error.to_string())
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
