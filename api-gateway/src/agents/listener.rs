//! Binding and serving.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use pki::{Authority, Identity};
use proto::agent::agent_service_server::AgentServiceServer;
use rustix::system::uname;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use service::door::Door;
use service::{Shutdown, bind};
use store::Store;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;

use super::calls::Agents;
use super::config::{CALL_TIMEOUT, KEEP_ALIVE, MAX_CALLS_PER_CONNECTION, MAX_MESSAGE_BYTES};
use super::connections::incoming;
use super::{Config, Doorbell, Error};

/// A bound listener that does not serve yet.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    door: Door,
    stranger_limit: Duration,
    agents: Agents,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
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
        Ok(Self {
            listener,
            address,
            tls: TlsAcceptor::from(Arc::new(
                tls(&identity, authority.certificate_pem()).map_err(Error::Tls)?,
            )),
            door: config.door(),
            stranger_limit: config.stranger_limit(),
            agents: Agents::new(authority, store, config),
        })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the doorbell, which wakes the agents that are connected here.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(self.agents.watches().clone())
    }

    /// Serves until draining. Then open watches end, and agents call another gateway, or this one when it is back.
    ///
    /// # Errors
    /// [`Error::Serve`].
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), Error> {
        let agents = self.agents.ending_with(shutdown.clone());
        let service = AgentServiceServer::new(agents).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let incoming = incoming(self.listener, self.tls, self.door, self.stranger_limit);
        Server::builder()
            .timeout(CALL_TIMEOUT)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, shutdown.draining())
            .await?;
        Ok(())
    }
}

/// Configures TLS with an optional client certificate: an agent that registers has none yet.
pub(super) fn tls(
    identity: &Identity,
    authority_pem: &str,
) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority = pki::certificate_der(authority_pem)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    // The chain ends with the authority itself, for an agent that knows only the authority's fingerprint.
    let chain = vec![pki::certificate_der(&identity.certificate_pem)?, authority];
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// Returns the names in the listener's certificate.
fn server_names(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut names = config.agents_name.clone();
    names.push("localhost".to_owned());
    names.extend(uname().nodename().to_str().ok().map(str::to_owned));
    names.extend(addresses(address.ip()).iter().map(IpAddr::to_string));
    let mut seen = BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// Returns the addresses under which the listener is reached: all of this machine's when it listens on all.
fn addresses(listening: IpAddr) -> Vec<IpAddr> {
    if !listening.is_unspecified() {
        return vec![listening];
    }
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_known_by_each() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert!(addresses([0, 0, 0, 0].into()).contains(&local));
        assert_eq!(addresses(local), [local]);
    }

    #[test]
    fn names_are_given_once() {
        let config = Config {
            agents_name: vec!["localhost".to_owned(), "gateway.example".to_owned()],
            ..Config::for_tests()
        };
        let names = server_names(&config, config.agents);
        assert_eq!(names[..2], ["localhost", "gateway.example"]);
        assert_eq!(names.iter().filter(|name| *name == "localhost").count(), 1);
        assert!(names.contains(&"127.0.0.1".to_owned()));
    }
}
