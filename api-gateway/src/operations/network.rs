//! The network of a job: its region, and the vSwitch over which its agent reaches the receiver.

use store::network::{NetworkChange, NetworkRefusal};

use crate::Refusal;
use crate::arguments::{Arguments, Parameter, Rule};

pub(super) const NET_MODE: Parameter = Parameter::optional(
    "NetMode",
    Rule::OneOf(&["0", "2"]),
    "0, the public network, which is the default; 2, the private network of VSwitchId: agents reach receivers under the address that the operator has given it.",
);
pub(super) const VSWITCH_ID: Parameter = Parameter::optional(
    "VSwitchId",
    Rule::Text(128),
    "A vSwitch that the operator has configured for the account. NetMode 2 needs it.",
);
pub(super) const VPC_ID: Parameter = Parameter::optional(
    "VpcId",
    Rule::Text(128),
    "The VPC of VSwitchId, from which it follows; another is refused. Without a vSwitch, a VPC of the job's region.",
);

/// What the call asks of the job's network. Whether the account has it in the job's region is seen when the job is written.
pub(super) fn asked(arguments: &Arguments) -> NetworkChange {
    NetworkChange {
        net_mode: arguments
            .text("NetMode")
            .map(|mode| i32::from(mode == "2") * 2),
        vswitch_id: arguments.text("VSwitchId").map(str::to_owned),
        vpc_id: arguments.text("VpcId").map(str::to_owned),
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
