//! The state that all calls share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use domain::Clock;
use ipnet::IpNet;
use store::Store;
use store::key::KeyCache;

use crate::auditing::ThrottledCalls;
use crate::throttle::Throttle;

/// The state that all calls share.
#[derive(Debug)]
pub struct Gateway {
    /// The database.
    pub store: Store,
    /// Access keys that were looked up a moment ago.
    pub keys: KeyCache,
    /// The clock that checks the time stamps of signatures.
    pub clock: Arc<dyn Clock>,
    /// The one region of this service.
    pub region_id: String,
    /// Path of the image store, if this gateway has access to it.
    pub image_store: Option<PathBuf>,
    /// Largest system disk that may be asked for, in GiB.
    pub system_disk_limit_gib: u32,
    /// The OpenAPI description, as JSON.
    pub description: Bytes,
    /// Hexadecimal SHA-256 of the deployment authority's certificate: agents pin it.
    pub authority_fingerprint: String,
    /// Bounds of one request.
    pub limits: Limits,
    /// Bounds of the rate of calls.
    pub throttle: Throttle,
    /// Calls beyond these bounds, until they are in the audit.
    pub throttled: ThrottledCalls,
    /// Reverse proxies whose headers about their callers count.
    pub trusted_proxies: Vec<IpNet>,
    /// True if calls that did not come over TLS are refused.
    pub requires_tls: bool,
}

impl Gateway {
    /// Returns true for the address of a reverse proxy that the operator has named.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
    }
}

/// Bounds of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Parameters of a call, in query and body together.
    pub parameters: usize,
    /// Longest time from the head of a request to its answer.
    pub request_timeout: Duration,
}
