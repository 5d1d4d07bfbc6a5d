//! Binding and serving.

use std::net::SocketAddr;

use pki::Authority;
use proto::agent::agent_service_server::AgentServiceServer;
use service::{Shutdown, bind};
use store::Store;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::calls::Agents;
use super::config::{CALL_TIMEOUT, KEEP_ALIVE, MAX_CALLS_PER_CONNECTION, MAX_MESSAGE_BYTES};
use super::watch::Watches;
use super::{Config, Error};

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: ServerTlsConfig,
    agents: Agents,
}

impl Listener {
    /// Binds the address and makes its certificate.
    ///
    /// # Errors
    /// [`Error::Bind`] and [`Error::Certificate`].
    pub async fn bind(config: &Config, authority: Authority, store: Store) -> Result<Self, Error> {
        let listener = bind(config.agents, "--agents").await?;
        let address = listener.local_addr().unwrap_or(config.agents);
        let names = server_names(config, address);
        let identity = authority.issue_server(&names).map_err(Error::Certificate)?;
        tracing::info!(%address, ?names, "agents may call");
        // The chain ends with the authority itself: an agent that knows only its fingerprint finds it there.
        let chain = identity.certificate_pem + authority.certificate_pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, identity.key_pem))
            .client_ca_root(Certificate::from_pem(authority.certificate_pem()))
            .client_auth_optional(true)
            .timeout(CALL_TIMEOUT);
        Ok(Self {
            listener,
            address,
            tls,
            agents: Agents::new(authority, store, config),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What wakes the agents that are connected here.
    pub(super) fn watches(&self) -> Watches {
        self.agents.watches().clone()
    }

    /// Serves until draining: open watches end then, and agents call another gateway, or this one when it is back.
    ///
    /// # Errors
    /// [`Error::Serve`].
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), Error> {
        let agents = self.agents.ending_with(shutdown.clone());
        let service = AgentServiceServer::new(agents).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Server::builder()
            .tls_config(self.tls)?
            .timeout(CALL_TIMEOUT)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .add_service(service)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.listener).with_nodelay(Some(true)),
                shutdown.draining(),
            )
            .await?;
        Ok(())
    }
}

/// The names in the listener's certificate.
fn server_names(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut names = config.agents_name.clone();
    names.push("localhost".to_owned());
    let host_name = rustix::system::uname();
    names.extend(host_name.nodename().to_str().ok().map(str::to_owned));
    if address.ip().is_unspecified() {
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    } else {
        names.push(address.ip().to_string());
    }
    names.retain(|name| !name.is_empty());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
