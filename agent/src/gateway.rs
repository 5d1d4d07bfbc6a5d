//! Calling the gateway: registration once, then one connection that is kept open for ever.

mod clock;
mod link;
mod pin;
mod register;

pub(crate) use link::Link;
pub(crate) use register::register;

use std::time::Duration;

use pki::KeyPair;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::state_dir::Registration;
use crate::{Config, Error};

/// How often a silent connection is asked whether it still stands, and how long it may take to say so: the network before the
/// gateway may have dropped it without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The gateway, for a registered agent.
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

/// Why a connection could not be made, in one line: the clock where it is to blame, and all causes.
fn unconnected(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = chain(error);
    clock::blamed(error).map_or(causes.clone(), |clock| format!("{clock} ({causes})"))
}

/// An error and all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
