//! Binding and serving.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use pki::Authority;
use proto::agent::agent_service_server::AgentServiceServer;
use rustix::system::uname;
use service::{Shutdown, bind};
use store::Store;
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::calls::Agents;
use super::config::{CALL_TIMEOUT, KEEP_ALIVE, MAX_CALLS_PER_CONNECTION, MAX_MESSAGE_BYTES};
use super::connections::incoming;
use super::{Config, Doorbell, Error};

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    /// Most connections at once.
    most: usize,
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
            most: config.agents_max,
            tls,
            agents: Agents::new(authority, store, config),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What wakes the agents that are connected here.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(self.agents.watches().clone())
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
            .serve_with_incoming_shutdown(incoming(self.listener, self.most), shutdown.draining())
            .await?;
        Ok(())
    }
}

/// The names in the listener's certificate.
fn server_names(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut names = config.agents_name.clone();
    names.push("localhost".to_owned());
    names.extend(uname().nodename().to_str().ok().map(str::to_owned));
    names.extend(addresses(address.ip()).iter().map(IpAddr::to_string));
    let mut seen = BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// The addresses under which the listener is reached: all of this machine's when it listens on all.
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
            agents: ([127, 0, 0, 1], 8701).into(),
            agents_name: vec!["localhost".to_owned(), "gateway.example".to_owned()],
            agents_poll_secs: 1,
            agents_max: 1,
        };
        let names = server_names(&config, config.agents);
        assert_eq!(names[..2], ["localhost", "gateway.example"]);
        assert_eq!(names.iter().filter(|name| *name == "localhost").count(), 1);
        assert!(names.contains(&"127.0.0.1".to_owned()));
    }
}
