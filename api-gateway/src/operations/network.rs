//! The network of a job: its region, and the vSwitch over which its agent reaches the receiver.

use smc::model::NetMode;
use store::network::{NetworkChange, NetworkRefusal};

use crate::Refusal;

/// What the call asks of the job's network. Whether the account has it in the job's region is seen when the job is written.
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

/// The job can't have that network.
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
