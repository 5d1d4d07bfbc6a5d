//! Calls to the gateway: one registration, then one connection that is kept open for ever.

mod clock;
mod link;
mod pin;
mod register;
mod renewal;

pub(crate) use link::Link;
pub(crate) use register::register;
pub(crate) use renewal::{Renewal, has_expired};

use std::time::Duration;

use pki::KeyPair;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Code, Status};

use crate::state_dir::Registration;
use crate::{Config, Error};

/// Interval at which a silent connection is probed, and the time that an answer may take. The network may have dropped
/// the connection without notice.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Returns the gateway's endpoint for a registered agent.
pub(crate) fn endpoint(
    config: &Config,
    registration: &Registration,
    key: &KeyPair,
) -> Result<Endpoint, Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&registration.authority_pem))
        .identity(Identity::from_pem(
            &registration.certificate_pem,
            key.to_pem(),
        ))
        .timeout(config.request_timeout());
    plain_endpoint(config)
        .tls_config(tls)
        .map_err(tls_failed(&config.server))
}

fn plain_endpoint(config: &Config) -> Endpoint {
    Endpoint::from(config.server.clone())
        .connect_timeout(config.request_timeout())
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

fn tls_failed(server: &Uri) -> impl FnOnce(tonic::transport::Error) -> Error {
    let server = server.to_string();
    |source| Error::Tls {
        server,
        source: source.into(),
    }
}

/// The longest time that a gateway may ask an agent to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Returns the pause that the gateway requests before the next call, if that is its answer.
fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.metadata().get("retry-after")?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.parse().ok()?);
    (status.code() == Code::ResourceExhausted).then_some(wait.min(LONGEST_WAIT))
}

/// Returns the reason for a failed connection in one line: the clock if it is the cause, and all causes.
fn unconnected(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = chain(error);
    clock::blamed(error).map_or(causes.clone(), |clock| format!("{clock} ({causes})"))
}

/// Returns an error and all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: Code, retry_after: Option<&'static str>) -> Status {
        let mut status = Status::new(code, "");
        if let Some(text) = retry_after {
            let value = tonic::metadata::MetadataValue::from_static(text);
            status.metadata_mut().insert("retry-after", value);
        }
        status
    }

    #[test]
    fn a_gateway_that_asks_to_wait_is_obeyed_within_reason() {
        for (code, text, wanted) in [
            (Code::ResourceExhausted, Some("2"), Some(2)),
            (Code::ResourceExhausted, Some("999999"), Some(300)),
            (Code::ResourceExhausted, Some("soon"), None),
            // An exhausted quota is no reason to try again.
            (Code::ResourceExhausted, None, None),
            (Code::Unavailable, Some("2"), None),
        ] {
            let wait = retry_after(&answer(code, text));
            assert_eq!(wait, wanted.map(Duration::from_secs), "{code} {text:?}");
        }
    }
}
