//! The operators' service: gRPC over a Unix domain socket, for `wherry admin`.
//!
//! Anyone who may open the socket is the operator. Its mode is 0600, in a directory that nobody else can write to. So
//! only root and the account of the gateway get in. There is no other credential, and none that could be sent over a
//! network by mistake. Each call that changes something is written to the audit with the uid of the other end.

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

/// The answer to a change, and the facts about the change that go into the audit.
#[derive(Debug)]
struct Changed<T> {
    message: T,
    /// The tenant whose data changed; `None` if the data belongs to no tenant.
    tenant: Option<domain::TenantId>,
    /// Ids that the change made.
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

    /// A change of data that belongs to no tenant.
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

/// Turns a failed statement into the operator's error. The log has the cause.
fn failed(error: StoreError) -> Status {
    let refusal = Refusal::from(error);
    if refusal == Refusal::unavailable() {
        Status::unavailable("the gateway can't reach its database: try again when it is back")
    } else {
        Status::internal("the gateway failed; its log has the cause")
    }
}
