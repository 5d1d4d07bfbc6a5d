//! The gateway: the SMC API over HTTP, the agents' gRPC service, and the operators'.
//!
//! A call runs through `answering`: read (`request`), verify (`authentication`), allow (`authorization`), check
//! (`arguments`), answer (`operations`), render (`answer`). Calls are checked against the table of operations in
//! `operations`, and `docs/api.md` is made from it. The gateway decides nothing about jobs: it writes the tenant's
//! intent, and answers.

mod admin;
mod answer;
mod answering;
mod arguments;
mod auditing;
mod authentication;
mod authorization;
mod client_token;
mod config;
mod download;
mod error_codes;
mod gateway;
mod listener;
mod operation;
mod operations;
mod origin;
mod principal;
mod refusal;
mod request;
mod schema;
mod throttle;
mod tls;
mod trace;
mod upkeep;

pub mod agents;
pub mod openapi;
pub mod reference;
pub mod unverified;

use std::net::SocketAddr;
use std::sync::Arc;

use bus::BusConfig;
use domain::clock::SystemClock;
use secrecy::ExposeSecret as _;
use service::{BindError, Dependency, Policy, Shutdown, TaskFailure, TaskGroup, bind, health};
use store::key::KeyCache;
use store::{ConnectConfig, Store, StoreError};
use tokio::net::TcpListener;

pub use admin::Error as AdminError;
pub use config::Config;
pub use operations::{NewToken, TokenMade, create_token};
pub(crate) use refusal::Refusal;

use auditing::ThrottledCalls;
use gateway::{Gateway, Limits};
use throttle::Throttle;
use tls::Certificate;
pub use tls::TlsError;

/// An error that keeps a gateway from running, or ends it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address to listen on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate of the API.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The agents' listener.
    #[error(transparent)]
    Agents(#[from] agents::Error),
    /// The operators' socket.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A task of the gateway failed while it ran, or did not end in time.
    #[error("the gateway ended")]
    Tasks(#[from] TaskFailure),
}

/// A gateway that is connected and bound but does not serve yet: its addresses are known.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    api: TcpListener,
    api_tls: Option<(TcpListener, Arc<Certificate>)>,
    agents: agents::Listener,
    admin: Option<admin::Socket>,
    health: Option<TcpListener>,
    config: Config,
}

/// Runs a gateway until it is asked to end.
///
/// # Errors
/// See [`Error`].
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    Server::bind(config).await?.serve(shutdown).await
}

impl Server {
    /// Connects to Postgres and binds all addresses.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Bind`] and [`Error::Agents`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let connect = ConnectConfig {
            max_connections: config.connections_for_all(),
            tenant_connections: config.connections_for_tenants(),
            acquire_timeout: config.database_wait(),
            statement_timeout: config::STATEMENT_TIMEOUT,
            tenant_statement_timeout: config.call_statement_timeout(),
            lock_timeout: config.lock_timeout(),
            ..ConnectConfig::new(config.database_url.expose_secret(), "wherry gateway")
        };
        let store = Store::connect(&connect, config.seal_key.clone()).await?;
        store.require_schema().await?;
        let authority = agents::authority(&store).await?;
        let gateway = Gateway {
            keys: KeyCache::new(store.clone(), config::CACHED_KEYS, config::KEY_CACHED_FOR),
            clock: Arc::new(SystemClock),
            region_id: config.region.clone(),
            image_store: config.image_store.clone(),
            system_disk_limit_gib: config.max_system_disk_gib,
            description: openapi::document(config.max_system_disk_gib)
                .to_string()
                .into(),
            authority_fingerprint: authority.fingerprint(),
            limits: Limits {
                body_bytes: config.api_body_bytes,
                parameters: config.api_parameters,
                request_timeout: config.call_limit(),
            },
            throttle: Throttle::new(store.clone()),
            throttled: ThrottledCalls::default(),
            trusted_proxies: config.trusted_proxies.clone(),
            requires_tls: config.api_require_tls,
            store: store.clone(),
        };
        Ok(Self {
            gateway: Arc::new(gateway),
            api: bind(config.api, "--api").await?,
            api_tls: tls_listener(&config).await?,
            agents: agents::Listener::bind(&config.agents, authority, store).await?,
            admin: config
                .admin
                .as_deref()
                .map(admin::Socket::bind)
                .transpose()?,
            health: match config.health {
                Some(address) => Some(bind(address, "--health").await?),
                None => None,
            },
            config,
        })
    }

    /// Returns the address of the API.
    pub fn api_address(&self) -> SocketAddr {
        self.api.local_addr().unwrap_or(self.config.api)
    }

    /// Returns the address of the API over HTTPS.
    pub fn api_tls_address(&self) -> Option<SocketAddr> {
        let (listener, _) = self.api_tls.as_ref()?;
        listener.local_addr().ok()
    }

    /// Returns the address that agents call.
    pub fn agents_address(&self) -> SocketAddr {
        self.agents.address()
    }

    /// Returns the address of /healthz, /readyz and /metrics.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
            .as_ref()
            .and_then(|health| health.local_addr().ok())
    }

    /// Serves until it is asked to end, and lets the calls under way end.
    ///
    /// # Errors
    /// [`Error::Tasks`].
    pub async fn serve(mut self, shutdown: Shutdown) -> Result<(), Error> {
        tracing::info!(api = %self.api_address(), agents = %self.agents_address(), "gateway listens");
        // The child ends with this call, whatever its result.
        let shutdown = shutdown.child();
        let (listener, readiness) = (self.health.take(), self.config.readiness.clone());
        let served = Box::pin(self.serve_calls(&shutdown));
        let ended = health::shown_at(listener, readiness, &shutdown, served).await;
        shutdown.exit();
        ended
    }

    async fn serve_calls(self, shutdown: &Shutdown) -> Result<(), Error> {
        let tasks = TaskGroup::new(shutdown.clone());
        // The listeners with and without TLS share their places.
        let door = (self.config.door(), self.config.connection_limits());
        let postgres = Dependency::new(&self.config.readiness, "gateway", "postgres");
        let gateway = Arc::clone(&self.gateway);
        tasks.start("watch_postgres", Policy::restart(), move || {
            upkeep::watch_postgres(Arc::clone(&gateway), postgres.clone())
        });
        let (store, audit_days) = (self.gateway.store.clone(), self.config.audit_days);
        tasks.start("forget", Policy::restart(), move || {
            upkeep::forget(store.clone(), audit_days)
        });
        let gateway = Arc::clone(&self.gateway);
        let draining = shutdown.clone();
        tasks.start("audit_throttled", Policy::restart().finishes(), move || {
            upkeep::audit_throttled(Arc::clone(&gateway), draining.clone())
        });
        let doorbell = self.agents.doorbell();
        let bus = BusConfig::new(self.config.nats_url.expose_secret(), "wherry gateway");
        tasks.start("nudges", Policy::restart(), move || {
            let heard = doorbell.clone().hear(bus.clone());
            async { heard.await.map(|never| match never {}) }
        });
        tasks.start_once("agents", self.agents.serve(shutdown.clone()));
        if let Some(admin) = self.admin {
            let gateway = Arc::clone(&self.gateway);
            tasks.start_once("admin", admin.serve(gateway, shutdown.clone()));
        }
        tasks.start_once(
            "api",
            listener::serve(
                self.api,
                None,
                Arc::clone(&self.gateway),
                door.clone(),
                tasks.clone(),
            ),
        );
        if let Some((listener, certificate)) = self.api_tls {
            let acceptor = certificate.acceptor();
            tasks.start("refresh_certificate", Policy::restart(), move || {
                upkeep::refresh(Arc::clone(&certificate))
            });
            let gateway = Arc::clone(&self.gateway);
            tasks.start_once(
                "api_tls",
                listener::serve(listener, Some(acceptor), gateway, door, tasks.clone()),
            );
        }
        let ended = tasks.join(self.config.drain_deadline()).await;
        // Writes the throttled calls that ended while the gateway drained.
        if let Err(error) = self.gateway.throttled.write(&self.gateway.store).await {
            tracing::warn!(%error, "throttled calls of the last minute are not in the audit");
        }
        self.gateway.store.close().await;
        Ok(ended?)
    }
}

async fn tls_listener(config: &Config) -> Result<Option<(TcpListener, Arc<Certificate>)>, Error> {
    let Some(address) = config.api_tls else {
        return Ok(None);
    };
    let (Some(certificate), Some(key)) = (&config.api_certificate, &config.api_key) else {
        return Err(TlsError::NoCertificate.into());
    };
    let certificate = Certificate::read(certificate, key)?;
    Ok(Some((bind(address, "--api-tls").await?, certificate)))
}
