//! Detection of clocks that are off, and by how much.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::seat::spoken;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

/// Returns this server's clock, as Unix time in milliseconds.
pub(super) fn unix_millis() -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Returns the explanation of a connection that failed because of a clock. In that case the gateway's certificate is
/// not valid at this server's present time.
pub(super) fn blamed(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(sentence) = of_tls(error).and_then(sentence) {
            return Some(sentence);
        }
        cause = error.source();
    }
    None
}

/// Returns the TLS library's error, which an I/O error may contain without naming it as its source.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inside = || {
        let io = error.downcast_ref::<std::io::Error>()?;
        io.get_ref()?.downcast_ref()
    };
    error.downcast_ref().or_else(inside)
}

fn sentence(error: &rustls::Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(error) = error else {
        return None;
    };
    match error {
        CertificateError::NotValidYetContext { time, not_before } => Some(format!(
            "the clock of this server is at least {} behind the gateway's, whose certificate is not valid yet by it. Set the clock (NTP); the \
             agent goes on by itself",
            between(*time, *not_before)
        )),
        CertificateError::ExpiredContext { time, not_after } => Some(format!(
            "the gateway's certificate expired {} ago by the clock of this server. If that clock is ahead, set it (NTP), and the agent goes on by \
             itself; if it is right, the gateway has to be started again",
            between(*not_after, *time)
        )),
        CertificateError::NotValidYet | CertificateError::Expired => Some(
            "the gateway's certificate is not valid at the time that the clock of this server shows: set the clock (NTP)".to_owned(),
        ),
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
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_means_a_clock_and_how_far_it_is_off() {
        let error = rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time: at(10_000),
            not_before: at(10_000 + 3720),
        });
        let wrapped = std::io::Error::other(std::io::Error::other(error));
        // The outer error names the inner one as its contents, not as its source.
        let told =
            blamed(wrapped.get_ref().expect("an error inside")).expect("the clock is blamed");
        assert!(
            told.contains("the clock of this server is at least 1 h 2 min behind"),
            "{told}"
        );
    }

    #[test]
    fn other_errors_are_no_clocks() {
        let error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(blamed(&error), None);
        assert_eq!(blamed(&std::io::Error::other("gone")), None);
    }
}
