//! The agents' listener: gRPC over TLS with the deployment's own authority.
//!
//! A client certificate is optional in the handshake, because an agent that registers has none yet. Every call but
//! `Register` requires one. The authority has signed it over the agent's key, and its common name is the id of the
//! source. So the caller's identity is its key. The certificate of a deleted source is still well-formed but is
//! refused: the source's row decides.

mod authority;
mod calls;
mod config;
mod connections;
mod doorbell;
mod handshake;
mod inventory;
mod listener;
mod rates;
mod register;
mod watch;

pub use authority::authority;
pub use config::Config;
pub use doorbell::Doorbell;
pub use listener::Listener;

/// An error that keeps the agents' listener from working.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The deployment's authority could not be read or made.
    #[error("the deployment's certificate authority can't be read")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The listener's own certificates can't be used for TLS.
    #[error("the agents' listener can't use the deployment's certificates")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No certificate could be made for the listener.
    #[error(
        "no certificate can be made for the agents' listener: are the names of --agents-name DNS names or IP addresses?"
    )]
    Certificate(#[source] pki::Error),
    /// The address could not be bound.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// NATS does not pass on nudges.
    #[error("nudges can't be heard: agents learn of their assignments a few seconds later")]
    Bus(#[from] bus::BusError),
    /// The connection to NATS was closed for good.
    #[error("nudges are heard no longer: the connection to NATS was closed")]
    Deaf,
    /// TLS or gRPC failed as a whole.
    #[error("the agents' listener failed")]
    Serve(#[from] tonic::transport::Error),
}
