//! Names the clock that makes TLS handshakes of agents fail.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use domain::seat::spoken;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// Log lines a minute about clocks. Strangers can cause them too, and must not fill the log.
const LINES_A_MINUTE: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// Reports handshakes that failed.
#[derive(Debug)]
pub(super) struct Failures {
    lines: DefaultDirectRateLimiter,
}

impl Failures {
    pub fn new() -> Self {
        Self {
            lines: RateLimiter::direct(Quota::per_minute(LINES_A_MINUTE)),
        }
    }

    /// Logs a failure, as a warning if a clock is wrong.
    pub fn tell(&self, address: IpAddr, error: &io::Error) {
        match clock_to_blame(error) {
            Some(reason) if self.lines.check().is_ok() => {
                tracing::warn!(%address, reason, "an agent can't connect: a clock is off");
            }
            _ => tracing::debug!(%address, %error, "a TLS handshake failed"),
        }
    }
}

/// Names the clock that made a handshake fail and the remedy, if a clock was the cause.
fn clock_to_blame(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        // TLS has one alert for "expired" and "not valid yet".
        Error::AlertReceived(AlertDescription::CertificateExpired) => Some(
            "by the clock of the agent's server, this gateway's certificate is not valid yet or has expired. Set the \
             clock of that server (NTP), and the agent goes on by itself; its log says how far the clock is off. If it \
             is right, check the clock of this host, and start the gateway again"
                .to_owned(),
        ),
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            Some(format!(
                "the clock of this host is at least {} behind: by it, the agent's certificate is not valid yet. Set \
                 the clock of this host (NTP)",
                between(*time, *not_before)
            ))
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            Some(format!(
                "by the clock of this host, the agent's certificate expired {} ago. Set the clock of this host (NTP) \
                 if it is ahead; if it is right, the agent was away for too long: register its server anew",
                between(*not_after, *time)
            ))
        }
        _ => None,
    }
}

fn between(earlier: UnixTime, later: UnixTime) -> String {
    spoken(Duration::from_secs(
        later.as_secs().saturating_sub(earlier.as_secs()),
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pki::{AGENT_VALIDITY, Authority};
    use rustls::client::WebPkiServerVerifier;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::time_provider::TimeProvider;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    const DAY: i64 = 86_400;

    /// A clock that is off by this number of seconds.
    #[derive(Debug)]
    struct Off(i64);

    impl TimeProvider for Off {
        fn current_time(&self) -> Option<UnixTime> {
            let now = UnixTime::now().as_secs().checked_add_signed(self.0)?;
            Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
        }
    }

    /// Makes a handshake of an agent and the gateway's listener, whose clocks are off. Returns the gateway's result.
    async fn handshake(agent: i64, gateway: i64) -> io::Result<()> {
        let authority = Authority::generate("deployment", AGENT_VALIDITY * 4).unwrap();
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        let mut tls = super::super::listener::tls(&server, authority.certificate_pem()).unwrap();
        tls.time_provider = Arc::new(Off(gateway));
        let client = authority.issue_client("s-1").unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(pki::certificate_der(authority.certificate_pem()).unwrap())
            .unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ClientConfig::builder_with_details(provider, Arc::new(Off(agent)));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config
            .with_webpki_verifier(verifier.build().unwrap())
            .with_client_auth_cert(
                vec![pki::certificate_der(&client.certificate_pem).unwrap()],
                PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes()).unwrap(),
            )
            .unwrap();
        let (here, there) = tokio::io::duplex(1 << 16);
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (_, accepted) = tokio::join!(connector.connect(name, here), acceptor.accept(there));
        accepted.map(drop)
    }

    #[tokio::test]
    async fn a_handshake_that_fails_by_a_clock_is_told_of_with_the_clock() {
        for (agent, gateway, wanted) in [
            (-400 * DAY, 0, "Set the clock of that server"),
            (4000 * DAY, 0, "Set the clock of that server"),
            (0, -2 * DAY, "the clock of this host is at least 1 d"),
            (0, 4000 * DAY, "certificate expired"),
        ] {
            let failed = handshake(agent, gateway).await.unwrap_err();
            let told = clock_to_blame(&failed);
            assert!(
                told.as_ref().is_some_and(|told| told.contains(wanted)),
                "{agent} {gateway}: {told:?} of {failed}"
            );
        }
        handshake(0, 0).await.unwrap();
    }

    #[test]
    fn other_failures_are_no_clocks() {
        let alert = Error::AlertReceived(AlertDescription::UnknownCA);
        assert_eq!(clock_to_blame(&io::Error::other(alert)), None);
        assert_eq!(clock_to_blame(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
