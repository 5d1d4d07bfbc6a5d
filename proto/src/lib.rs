//! Generated from `proto/wherry/*/v1/*.proto`: the operators' service, the agents' service, the receiver's service, and
//! events.

/// Every service and message, as an encoded `FileDescriptorSet`: for rules that must hold for every call.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Service between `wherry admin` and the gateway.
pub mod admin {
    tonic::include_proto!("wherry.admin.v1");
}

/// Service between the agent on a source and the gateway.
pub mod agent {
    tonic::include_proto!("wherry.agent.v1");
}

/// Service between a worker and the receiver in its run's instance.
pub mod receiver {
    /// Name in the certificate of a caller of the receiver.
    pub const CONTROL_NAME: &str = "control";

    /// Name of the socket in an instance's directory at which its receiver is called.
    pub const CONTROL_SOCKET: &str = "control.sock";

    /// The metadata of a refused call with the failure's code.
    pub const FAILURE_KEY: &str = "wherry-failure";

    /// The metadata of a refused call with the failure's cause, which the operator reads.
    pub const CAUSE_KEY: &str = "wherry-cause-bin";

    tonic::include_proto!("wherry.receiver.v1");
}

/// Messages on NATS.
pub mod event {
    tonic::include_proto!("wherry.event.v1");
}
