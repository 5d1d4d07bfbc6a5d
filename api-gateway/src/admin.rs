//! The operators' service: gRPC over a Unix domain socket, for `wherry admin`.
//!
//! Whoever may open the socket is the operator: its mode is 0600, in a directory that nobody else can write to, so only the account that the
//! gateway runs as, and root, get in. There is no other credential, and none that could be sent over a network by mistake. Each call
//! that changes something is written to the audit with the uid of the other end.

mod calls;
mod dead_letter;
mod key;
mod log;
mod network;
mod peer;
mod policy;
mod seal;
mod socket;
mod tenant;
mod token;
mod user;

use std::sync::Arc;

use store::StoreError;
use tonic::Status;

use crate::Refusal;
use crate::gateway::Gateway;

pub use socket::{Error, Socket};

/// The service.
#[derive(Debug, Clone)]
struct Admin {
    gateway: Arc<Gateway>,
}

/// What a change answers with, and what the audit is told of it.
#[derive(Debug)]
struct Changed<T> {
    message: T,
    /// Whom it concerned; `None` for what is no tenant's.
    tenant: Option<domain::TenantId>,
    /// Ids that it made.
    made: Vec<String>,
}

impl<T> Changed<T> {
    fn new(tenant: domain::TenantId, message: T) -> Self {
        Self {
            message,
            tenant: Some(tenant),
            made: Vec::new(),
        }
    }

    /// A change of what is no tenant's.
    fn of_all(message: T) -> Self {
        Self {
            message,
            tenant: None,
            made: Vec::new(),
        }
    }

    fn with(self, id: impl Into<String>) -> Self {
        Self {
            made: vec![id.into()],
            ..self
        }
    }
}

/// A failed statement as the operator reads it. The log has the cause.
fn failed(error: StoreError) -> Status {
    let refusal = Refusal::from(error);
    if refusal == Refusal::unavailable() {
        Status::unavailable("the gateway can't reach its database: try again when it is back")
    } else {
        Status::internal("the gateway failed; its log has the cause")
    }
}
