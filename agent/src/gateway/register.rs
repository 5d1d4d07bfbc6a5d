//! Registration: the server becomes a source.

use std::sync::Arc;
use std::time::Duration;

use pki::KeyPair;
use proto::agent as wire;
use proto::agent::agent_service_client::AgentServiceClient;
use telemetry::trace_context::traced;
use tonic::transport::ClientTlsConfig;
use tonic::{Code, Request, Status};

use super::pin::PinVerifier;
use super::{clock, plain_endpoint, retry_after, tls_failed, unconnected};
use crate::state_dir::Registration;
use crate::{ActivationCode, Config, Error};

/// Outcomes of a failed attempt.
enum Failed {
    /// Trying again can't help.
    ForGood(Error),
    /// The gateway may answer soon.
    ForNow(String),
    /// The gateway asks to call later.
    Early(Duration),
}

/// Registers the key, trying again for as long as the gateway does not answer.
///
/// # Errors
/// [`Error::WrongDeployment`], [`Error::Refused`] and [`Error::Tls`].
pub(crate) async fn register(
    config: &Config,
    code: &ActivationCode,
    key: &KeyPair,
    inventory: wire::Inventory,
) -> Result<Registration, Error> {
    let request = wire::RegisterRequest {
        activation_secret: code.secret.clone(),
        certificate_request_pem: key.certificate_request("agent").map_err(Error::Key)?,
        name: config.name.clone().unwrap_or_default(),
        inventory: Some(inventory),
        unix_millis: None,
    };
    let mut pauses = config.pauses();
    let mut has_complained = false;
    loop {
        match attempt(config, code, &request).await {
            Ok(registration) => return Ok(registration),
            Err(Failed::ForGood(error)) => return Err(error),
            Err(Failed::ForNow(reason)) if !has_complained => {
                has_complained = true;
                tracing::warn!(server = %config.server, reason, "can't reach the gateway to register: trying until it answers");
            }
            Err(Failed::ForNow(reason)) => tracing::debug!(reason, "can't reach the gateway yet"),
            Err(Failed::Early(pause)) => {
                tracing::debug!(
                    ?pause,
                    "the gateway has many registrations from this address"
                );
                // A pause of the agent's own is added, so that servers with the same answer do not return at once.
                tokio::time::sleep(pause).await;
            }
        }
        tokio::time::sleep(pauses.next()).await;
    }
}

async fn attempt(
    config: &Config,
    code: &ActivationCode,
    request: &wire::RegisterRequest,
) -> Result<Registration, Failed> {
    let server = config.server.to_string();
    let verifier = Arc::new(PinVerifier::new(&code.pin));
    let tls = ClientTlsConfig::new().timeout(config.request_timeout());
    let channel = plain_endpoint(config)
        .tls_config_with_verifier(tls, verifier.clone())
        .map_err(tls_failed(&config.server))
        .map_err(Failed::ForGood)?
        .connect()
        .await
        .map_err(|error| {
            if verifier.has_refused() {
                Failed::ForGood(Error::WrongDeployment {
                    server: server.clone(),
                })
            } else {
                Failed::ForNow(unconnected(&error))
            }
        })?;
    let mut client = AgentServiceClient::with_interceptor(channel, |call| Ok(traced(call)));
    let request = wire::RegisterRequest {
        unix_millis: clock::unix_millis(),
        ..request.clone()
    };
    let call = client.register(Request::new(request));
    let answer = tokio::time::timeout(config.request_timeout(), call)
        .await
        .map_err(|_| Failed::ForNow("the gateway did not answer in time".to_owned()))?
        .map_err(|status| refused(server.clone(), &status))?
        .into_inner();
    if let Some(clock) = answer.clock_ahead_millis.and_then(domain::seat::clock_off) {
        tracing::warn!(
            server,
            clock,
            "this server and the gateway don't agree on the time"
        );
    }
    registration(answer).map_err(|reason| Failed::ForGood(Error::Refused { server, reason }))
}

fn refused(server: String, status: &Status) -> Failed {
    if let Some(pause) = retry_after(status) {
        return Failed::Early(pause);
    }
    match status.code() {
        Code::InvalidArgument
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented => Failed::ForGood(Error::Refused {
            server,
            reason: status.message().to_owned(),
        }),
        _ => Failed::ForNow(status.message().to_owned()),
    }
}

fn registration(answer: wire::RegisterResponse) -> Result<Registration, String> {
    Ok(Registration {
        source_id: answer
            .source_id
            .parse()
            .map_err(|error| format!("its answer can't be read: {error}"))?,
        certificate_pem: answer.certificate_pem,
        authority_pem: answer.authority_pem,
    })
}
