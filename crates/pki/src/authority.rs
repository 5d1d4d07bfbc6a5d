//! A certificate authority.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;

use crate::certificate::{certificate_der, parse};
use crate::key::distinguished_name;
use crate::{Error, KeyPair};

/// Lifetime of the deployment's authority: ten years.
pub const DEPLOYMENT_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Lifetime of an agent's certificate unless it is renewed: one year.
pub const AGENT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Lifetime of a run's authority, and so the longest run: thirty days.
pub const RUN_VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Largest tolerated lag of a peer's clock.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A private key with the certificate over it. The key does not print.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate authority: a key, and the certificate that its own key signed. The key does not print.
pub struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority that lives for `valid_for`; every certificate that it issues ends with it.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn generate(common_name: &str, valid_for: Duration) -> Result<Self, Error> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + valid_for).into();
        params.serial_number = Some(serial_number());
        params.distinguished_name = distinguished_name(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?.0;
        let certificate = params
            .self_signed(&key)
            .map_err(Error::make(format!("the authority {common_name}")))?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads the authority of a certificate and its key, both PEM.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let certificate = certificate_der(certificate_pem)?;
        let key = KeyPair::from_pem(key_pem)?.0;
        let certified = parse(&certificate)?.public_key().raw == key.subject_public_key_info();
        if !certified {
            return Err(Error::read("the authority")(
                "its certificate is not over its key",
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(Error::read("the authority's certificate"))?;
        Ok(Self {
            issuer,
            certificate,
            certificate_pem: certificate_pem.to_owned(),
        })
    }

    /// Returns the authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the authority's private key, PKCS #8 PEM. Seal it before it is stored.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Returns the [`fingerprint`](crate::fingerprint) of the authority's certificate.
    pub fn fingerprint(&self) -> String {
        crate::fingerprint(&self.certificate)
    }

    /// Issues a key and certificate for a server that is reached by `names`: DNS names and IP addresses. The first is
    /// its common name.
    ///
    /// # Errors
    /// [`Error::Make`], also for an invalid DNS name.
    pub fn issue_server(&self, names: &[String]) -> Result<Identity, Error> {
        let common_name = names.first().map_or("server", String::as_str);
        let mut params = CertificateParams::new(names)
            .map_err(Error::make(format!("the certificate of {common_name}")))?;
        params.distinguished_name = distinguished_name(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue_identity(params, common_name)
    }

    /// Issues a key and certificate for a client.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn issue_client(&self, common_name: &str) -> Result<Identity, Error> {
        self.issue_identity(client(common_name)?, common_name)
    }

    /// Issues a client certificate (PEM) over another party's public key, the DER of a SubjectPublicKeyInfo. The
    /// certificate proves nothing by itself: only the holder of the private key can use it.
    ///
    /// # Errors
    /// [`Error::Read`] if it is not a public key, and [`Error::Make`].
    pub fn issue_client_over_public_key(
        &self,
        common_name: &str,
        public_key_der: &[u8],
    ) -> Result<String, Error> {
        let public_key = SubjectPublicKeyInfo::from_der(public_key_der)
            .map_err(Error::read("the public key"))?;
        self.issue(client(common_name)?, common_name, &public_key, None)
    }

    /// Issues the same certificate, for `valid_for` at most. Used for certificates that are renewed.
    ///
    /// # Errors
    /// [`Error::Read`] if it is not a public key, and [`Error::Make`].
    pub fn issue_client_for(
        &self,
        common_name: &str,
        public_key_der: &[u8],
        valid_for: Duration,
    ) -> Result<String, Error> {
        let public_key = SubjectPublicKeyInfo::from_der(public_key_der)
            .map_err(Error::read("the public key"))?;
        let end = SystemTime::now() + valid_for;
        self.issue(client(common_name)?, common_name, &public_key, Some(end))
    }

    /// Issues a client certificate (PEM) over the key of a certificate request, after the request has proved that its
    /// sender has that key. The names in the request are ignored.
    ///
    /// # Errors
    /// [`Error::Read`] if it is not a request, [`Error::NoPossession`] and [`Error::Make`].
    pub fn issue_from_request(
        &self,
        request_pem: &str,
        common_name: &str,
    ) -> Result<String, Error> {
        let request = verified(request_pem)?;
        self.issue(client(common_name)?, common_name, &request.public_key, None)
    }

    fn issue_identity(&self, params: CertificateParams, name: &str) -> Result<Identity, Error> {
        let key = KeyPair::generate()?;
        Ok(Identity {
            certificate_pem: self.issue(params, name, &key.0, None)?,
            key_pem: key.to_pem(),
        })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        name: &str,
        public_key: &impl PublicKeyData,
        end: Option<SystemTime>,
    ) -> Result<String, Error> {
        params.not_before = (SystemTime::now() - CLOCK_SKEW).into();
        let own_end = parse(&self.certificate)?.validity().not_after.to_datetime();
        params.not_after = end.map_or(own_end, |end| own_end.min(end.into()));
        params.serial_number = Some(serial_number());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
            .signed_by(public_key, &self.issuer)
            .map(|certificate| certificate.pem())
            .map_err(Error::make(format!("the certificate of {name}")))
    }
}

/// Returns the public key of a certificate request (PEM), as DER of a SubjectPublicKeyInfo. The request must prove that
/// its sender has the private key.
///
/// # Errors
/// [`Error::Read`] if it is not a request, and [`Error::NoPossession`].
pub fn public_key_of_request(request_pem: &str) -> Result<Vec<u8>, Error> {
    Ok(verified(request_pem)?.public_key.subject_public_key_info())
}

fn verified(request_pem: &str) -> Result<CertificateSigningRequestParams, Error> {
    CertificateSigningRequestParams::from_pem(request_pem).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => Error::NoPossession,
        error => Error::read("the certificate request")(error),
    })
}

/// Returns the contents of a client's certificate: its owner, as the common name and as the one subject alternative
/// name.
fn client(common_name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new([common_name.to_owned()])
        .map_err(Error::make(format!("the certificate of {common_name}")))?;
    params.distinguished_name = distinguished_name(common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Returns 120 random bits. The library's own serial number is always the same over one key; this one is new for each
/// certificate.
fn serial_number() -> SerialNumber {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes[1..])
        .expect("the operating system gives randomness");
    bytes[0] = 1;
    SerialNumber::from_slice(&bytes)
}
