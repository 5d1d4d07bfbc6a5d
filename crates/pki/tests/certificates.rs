//! Certificates are accepted by peers that trust their authority, and by no other peer.

use std::sync::Arc;

use pki::{Authority, DEPLOYMENT_VALIDITY, Error, KeyPair, RUN_VALIDITY};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(pki::certificate_der(authority.certificate_pem()).unwrap())
        .unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_is_trusted(authority: &Authority, certificate: &CertificateDer<'_>, name: &str) -> bool {
    WebPkiServerVerifier::builder_with_provider(roots(authority), provider())
        .build()
        .unwrap()
        .verify_server_cert(
            certificate,
            &[],
            &ServerName::try_from(name).unwrap(),
            &[],
            UnixTime::now(),
        )
        .is_ok()
}

fn client_is_trusted(authority: &Authority, certificate: &CertificateDer<'_>) -> bool {
    WebPkiClientVerifier::builder_with_provider(roots(authority), provider())
        .build()
        .unwrap()
        .verify_client_cert(certificate, &[], UnixTime::now())
        .is_ok()
}

fn deployment() -> Authority {
    Authority::generate("Wherry deployment", DEPLOYMENT_VALIDITY).unwrap()
}

#[test]
fn a_server_is_trusted_under_its_names_by_its_authority_only() {
    let (ours, other) = (deployment(), deployment());
    let names = [
        "gateway.example".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let identity = ours.issue_server(&names).unwrap();
    let certificate = pki::certificate_der(&identity.certificate_pem).unwrap();
    for name in ["gateway.example", "127.0.0.1", "::1"] {
        assert!(server_is_trusted(&ours, &certificate, name), "{name}");
    }
    assert!(!server_is_trusted(&ours, &certificate, "other.example"));
    assert!(!server_is_trusted(&other, &certificate, "gateway.example"));
    assert!(
        !client_is_trusted(&ours, &certificate),
        "a server is no client"
    );
    KeyPair::from_pem(&identity.key_pem).unwrap();
}

#[test]
fn a_client_is_trusted_by_its_authority_only_and_says_who_it_is() {
    let (ours, other) = (deployment(), deployment());
    let identity = ours.issue_client("worker w-1").unwrap();
    let certificate = pki::certificate_der(&identity.certificate_pem).unwrap();
    assert!(client_is_trusted(&ours, &certificate));
    assert!(!client_is_trusted(&other, &certificate));
    assert!(
        !server_is_trusted(&ours, &certificate, "worker"),
        "a client is no server"
    );
    assert_eq!(pki::common_name_of(&certificate).unwrap(), "worker w-1");
}

#[test]
fn a_run_certifies_the_registered_key_of_an_agent() {
    let agent = KeyPair::generate().unwrap();
    let run = Authority::generate("run", RUN_VALIDITY).unwrap();
    let certificate = run
        .issue_client_over_public_key("s-1", &agent.public_key_der())
        .unwrap();
    let certificate = pki::certificate_der(&certificate).unwrap();
    assert!(client_is_trusted(&run, &certificate));
    assert_eq!(
        pki::public_key_der_of(&certificate).unwrap(),
        agent.public_key_der()
    );
    assert!(matches!(
        run.issue_client_over_public_key("s-1", b"no key"),
        Err(Error::Read { .. })
    ));
}

#[test]
fn a_request_proves_the_key_and_chooses_nothing_else() {
    let agent = KeyPair::generate().unwrap();
    let authority = deployment();
    let request = agent.certificate_request("s-of-somebody-else").unwrap();
    let certificate = authority.issue_from_request(&request, "s-1").unwrap();
    let certificate = pki::certificate_der(&certificate).unwrap();
    assert!(client_is_trusted(&authority, &certificate));
    assert_eq!(pki::common_name_of(&certificate).unwrap(), "s-1");
    assert_eq!(
        pki::public_key_of_request(&request).unwrap(),
        agent.public_key_der()
    );
    assert!(matches!(
        authority.issue_from_request("-----BEGIN", "s-1"),
        Err(Error::Read { .. })
    ));
}

#[test]
fn a_request_over_a_stolen_public_key_is_refused() {
    use rustls::pki_types::CertificateSigningRequestDer;
    use rustls::pki_types::pem::PemObject as _;

    let request = KeyPair::generate()
        .unwrap()
        .certificate_request("s-1")
        .unwrap();
    let mut der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
        .unwrap()
        .to_vec();
    // The name is signed, too: with one letter changed, the signature no longer matches.
    let at = der.windows(3).position(|window| window == b"s-1").unwrap();
    der[at + 2] = b'2';
    let body = base64(&der);
    let forged =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    assert!(matches!(
        deployment().issue_from_request(&forged, "s-1"),
        Err(Error::NoPossession)
    ));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn an_authority_goes_through_pem_and_stays_the_same() {
    let made = deployment();
    let read = Authority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
    assert_eq!(read.fingerprint(), made.fingerprint());
    let client = read.issue_client("s-1").unwrap();
    let certificate = pki::certificate_der(&client.certificate_pem).unwrap();
    assert!(client_is_trusted(&made, &certificate));

    let another = deployment();
    assert!(Authority::from_pem(made.certificate_pem(), &another.key_pem()).is_err());
}

#[test]
fn a_certificate_is_valid_an_hour_ago_and_not_after_its_authority_has_ended() {
    let run = Authority::generate("run", RUN_VALIDITY).unwrap();
    let client = run.issue_client("s-1").unwrap();
    let certificate = pki::certificate_der(&client.certificate_pem).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&run), provider())
        .build()
        .unwrap();
    let now = UnixTime::now().as_secs();
    let at = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
    assert!(
        verifier
            .verify_client_cert(&certificate, &[], at(now - 3500))
            .is_ok()
    );
    let end = now + RUN_VALIDITY.as_secs();
    assert!(
        verifier
            .verify_client_cert(&certificate, &[], at(end - 60))
            .is_ok()
    );
    assert!(
        verifier
            .verify_client_cert(&certificate, &[], at(end + 60))
            .is_err()
    );
}

#[test]
fn keys_and_authorities_do_not_print() {
    let authority = deployment();
    let identity = authority.issue_client("s-1").unwrap();
    for text in [
        format!("{authority:?}"),
        format!("{identity:?}"),
        format!("{:?}", KeyPair::generate().unwrap()),
    ] {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}
