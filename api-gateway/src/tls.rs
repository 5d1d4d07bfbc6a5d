//! HTTPS with the operator's certificate, which is read again when its file changes: a renewal needs no restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// An error that keeps HTTPS from being served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The address is given without a certificate and key.
    #[error(
        "--api-tls needs a certificate: give --api-certificate and --api-key, PEM files of the chain and its key"
    )]
    NoCertificate,
    /// A file can't be read.
    #[error("{} can't be read as PEM", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Reason for the failure.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key don't go together, or are of an unsupported kind.
    #[error("the certificate in {} can't be served with the key in {}", certificate.display(), key.display())]
    Unusable {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Reason for the failure.
        source: rustls::Error,
    },
}

/// The certificate that is served now.
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<(Arc<CertifiedKey>, Option<SystemTime>)>,
}

impl Certificate {
    /// Reads the chain and its key.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`] and [`TlsError::Unusable`].
    pub fn read(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let changed = changed(certificate);
        let current = load(certificate, key)?;
        Ok(Arc::new(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: RwLock::new((Arc::new(current), changed)),
        }))
    }

    /// Returns an acceptor of HTTPS connections with the certificate.
    ///
    /// # Panics
    /// If the process has installed no cryptography, which its main does first of all.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reads the files again if the certificate's was changed. If they can't be read or do not match, the old pair
    /// stays in use. A renewal may be half done, and the next refresh reads it again.
    pub fn refresh(&self) {
        let now = changed(&self.certificate);
        if now == self.read_lock().1 {
            return;
        }
        match load(&self.certificate, &self.key) {
            Ok(certified) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = (Arc::new(certified), now);
                tracing::info!(certificate = %self.certificate.display(), "the new certificate is served");
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the changed certificate is not served, the old one is"
            ),
        }
    }

    fn read_lock(&self) -> std::sync::RwLockReadGuard<'_, (Arc<CertifiedKey>, Option<SystemTime>)> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.read_lock().0))
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unreadable { path, source }
    };
    let unusable = |source| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let certified =
        CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider())
            .map_err(unusable)?;
    certified.keys_match().map_err(unusable)?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use pki::Authority;

    use super::*;

    fn write(directory: &Path, authority: &Authority) {
        let identity = authority.issue_server(&["localhost".to_owned()]).unwrap();
        std::fs::write(directory.join("key.pem"), identity.key_pem).unwrap();
        std::fs::write(directory.join("chain.pem"), identity.certificate_pem).unwrap();
    }

    fn served(certificate: &Certificate) -> Vec<u8> {
        certificate.read_lock().0.cert[0].to_vec()
    }

    #[test]
    fn half_a_renewal_is_not_served_and_the_whole_is() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (
            directory.path().join("chain.pem"),
            directory.path().join("key.pem"),
        );
        let authority = Authority::generate("test", pki::RUN_VALIDITY).unwrap();
        write(directory.path(), &authority);
        let certificate = Certificate::read(&chain, &key).unwrap();
        let first = served(&certificate);
        certificate.refresh();
        assert_eq!(served(&certificate), first);

        std::fs::write(&key, "nonsense").unwrap();
        std::fs::File::options()
            .append(true)
            .open(&chain)
            .unwrap()
            .set_modified(SystemTime::now() + std::time::Duration::from_secs(5))
            .unwrap();
        certificate.refresh();
        assert_eq!(served(&certificate), first);

        write(directory.path(), &authority);
        certificate.refresh();
        assert_ne!(served(&certificate), first);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_with_both_files_named() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::generate("test", pki::RUN_VALIDITY).unwrap();
        write(one.path(), &authority);
        write(other.path(), &authority);
        let (chain, key) = (one.path().join("chain.pem"), other.path().join("key.pem"));
        let error = Certificate::read(&chain, &key).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("chain.pem") && text.contains("key.pem"),
            "{text}"
        );
    }
}
