//! The network of a job: its region, and the vSwitch over which its agent reaches the receiver.

use smc::model::NetMode;
use store::network::{NetworkChange, NetworkRefusal};

use crate::Refusal;

/// Returns the network that the call asks for. The account's right to it in the job's region is checked when the job is
/// written.
pub(super) fn asked(
    net_mode: Option<NetMode>,
    vswitch_id: Option<String>,
    vpc_id: Option<String>,
) -> NetworkChange {
    NetworkChange {
        net_mode: net_mode.map(|mode| match mode {
            NetMode::Public => 0,
            NetMode::Private => 2,
        }),
        vswitch_id,
        vpc_id,
    }
}

/// Refuses a network that the job can't have.
pub(super) fn refused(refusal: NetworkRefusal) -> Refusal {
    match refusal {
        NetworkRefusal::NoVSwitch => Refusal::missing("VSwitchId"),
        NetworkRefusal::UnknownVSwitch => Refusal::not_found("VSwitchId"),
        NetworkRefusal::UnknownVpc => Refusal::not_found("VpcId"),
        NetworkRefusal::Mismatch => Refusal::new(
            "VSwitchIdVpcId.Mismatch",
            "The specified VSwitchId and VpcId does not match.",
        ),
    }
}
