//! api-gateway

pub mod agents;
