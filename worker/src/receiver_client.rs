//! Calls to a run's receiver: gRPC with mutual TLS by the run's authority, over a Unix socket or TCP. Each call has a
//! time limit and carries the trace that it belongs to.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::receiver as wire;
use proto::receiver::receiver_service_client::ReceiverServiceClient;
use telemetry::trace_context::traced;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tower::service_fn;

use crate::provider::ControlAddress;

/// Name in every receiver's certificate.
pub(crate) const RECEIVER_NAME: &str = "receiver";

/// Most bytes of an answer: enough for descriptions of images with many disks.
const MOST_BYTES: usize = 16 << 20;

/// A receiver, as its worker sees it.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverClient {
    client: ReceiverServiceClient<Channel>,
    timeout: Duration,
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer: the receiver may be gone.
    #[error("the receiver does not answer: {0}")]
    Lost(String),
    /// The receiver has seen a higher epoch.
    #[error("the receiver has a newer owner")]
    Fenced,
    /// The receiver can't do it.
    #[error("{}", .0.message)]
    Refused(domain::Failure),
}

impl ReceiverClient {
    /// Creates a client, which connects with its first call.
    pub(crate) fn new(
        address: &ControlAddress,
        authority_pem: &str,
        identity: &pki::Identity,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority_pem))
            .identity(Identity::from_pem(
                &identity.certificate_pem,
                &identity.key_pem,
            ))
            .domain_name(RECEIVER_NAME);
        let authority = match address {
            ControlAddress::Socket(_) => RECEIVER_NAME.to_owned(),
            ControlAddress::Tcp(address) => address.to_string(),
        };
        let endpoint = Endpoint::from_shared(format!("https://{authority}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| CallError::Lost(error.to_string()))?
            .connect_timeout(timeout)
            .timeout(timeout);
        let channel = match address {
            ControlAddress::Tcp(_) => endpoint.connect_lazy(),
            ControlAddress::Socket(path) => {
                let path = path.clone();
                endpoint.connect_with_connector_lazy(service_fn(move |_| {
                    let path = path.clone();
                    async move {
                        service::local_socket::connect(&path)
                            .await
                            .map(TokioIo::new)
                    }
                }))
            }
        };
        let client = ReceiverServiceClient::new(channel).max_decoding_message_size(MOST_BYTES);
        Ok(Self { client, timeout })
    }

    pub(crate) async fn admit(&self, epoch: i64) -> Result<wire::AdmitResponse, CallError> {
        let mut client = self.client.clone();
        self.bounded(client.admit(traced(Request::new(wire::AdmitRequest { epoch }))))
            .await
    }

    pub(crate) async fn status(&self, epoch: i64) -> Result<wire::StatusResponse, CallError> {
        let mut client = self.client.clone();
        self.bounded(client.status(traced(Request::new(wire::StatusRequest { epoch }))))
            .await
    }

    pub(crate) async fn halt(&self, epoch: i64) -> Result<(), CallError> {
        let mut client = self.client.clone();
        self.bounded(client.halt(traced(Request::new(wire::HaltRequest { epoch }))))
            .await
            .map(|wire::HaltResponse {}| ())
    }

    pub(crate) async fn build_image(&self, epoch: i64) -> Result<(), CallError> {
        let mut client = self.client.clone();
        let request = wire::BuildImageRequest { epoch };
        self.bounded(client.build_image(traced(Request::new(request))))
            .await
            .map(|wire::BuildImageResponse {}| ())
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CallError::of(&status)),
            Err(_) => Err(CallError::Lost(format!("no answer in {:?}", self.timeout))),
        }
    }
}

impl CallError {
    fn of(status: &Status) -> Self {
        let code = status
            .metadata()
            .get(wire::FAILURE_KEY)
            .and_then(|code| code.to_str().ok()?.parse().ok());
        let cause = || {
            let cause = status.metadata().get_bin(wire::CAUSE_KEY)?;
            String::from_utf8(cause.to_bytes().ok()?.to_vec()).ok()
        };
        match (status.code(), code) {
            (Code::FailedPrecondition, _) => Self::Fenced,
            (_, Some(code)) => {
                let failure = domain::Failure::new(code, status.message());
                Self::Refused(failure.with_cause(cause().unwrap_or_default()))
            }
            (_, None) => Self::Lost(status.message().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receiver_is_lost_where_nobody_listens_at_its_socket_or_port() {
        let _installed_by_another_test = rustls::crypto::ring::default_provider().install_default();
        let authority = pki::Authority::generate("run", pki::RUN_VALIDITY).unwrap();
        let worker = authority.issue_client(wire::CONTROL_NAME).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = port.local_addr().unwrap();
        drop(port);
        for address in [
            ControlAddress::Socket(directory.path().join("control.sock")),
            ControlAddress::Tcp(free),
        ] {
            let pem = authority.certificate_pem();
            let client = ReceiverClient::new(&address, pem, &worker, Duration::from_secs(5));
            let asked = client.unwrap().status(1).await;
            assert!(matches!(asked, Err(CallError::Lost(_))), "{asked:?}");
        }
    }
}
