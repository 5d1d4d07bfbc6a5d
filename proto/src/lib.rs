//! Generated from `proto/wherry/*/v1/*.proto`: the operators' service, the agents' service, the receiver's service, and events.

/// Every service and message, as an encoded `FileDescriptorSet`: for what must hold of each call that there is.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Between `wherry admin` and the gateway.
pub mod admin {
    tonic::include_proto!("wherry.admin.v1");
}

/// Between the agent on a source and the gateway.
pub mod agent {
    tonic::include_proto!("wherry.agent.v1");
}

/// Between a worker and the receiver in its run's instance.
pub mod receiver {
    /// The name in the certificate of who may call a receiver.
    pub const CONTROL_NAME: &str = "control";

    /// Name of the socket in an instance's directory at which its receiver is called.
    pub const CONTROL_SOCKET: &str = "control.sock";

    tonic::include_proto!("wherry.receiver.v1");
}

/// What goes through NATS.
pub mod event {
    tonic::include_proto!("wherry.event.v1");
}
