//! The network of a job: its region, and the vSwitch over which its agent reaches the receiver.

use store::network::JobNetwork;

use crate::Refusal;
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::Call;

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
    "The VPC of VSwitchId, from which it follows; another is refused.",
);

/// The account has no such vSwitch, or not in the job's region.
pub(super) fn not_found() -> Refusal {
    Refusal::not_found("VSwitchId")
}

/// Refuses a region that is neither this gateway's nor one that the operator has given to the account.
pub(super) async fn check_region(call: &Call, region_id: &str) -> Result<(), Refusal> {
    let store = &call.gateway.store;
    if region_id == call.gateway.region_id || store.has_region(&call.tenant, region_id).await? {
        return Ok(());
    }
    Err(Refusal::not_found("RegionId"))
}

/// The network that is asked for; `None` if nothing is said of it. Whether it lies in the job's region is seen when the job is written.
pub(super) async fn asked(
    call: &Call,
    arguments: &Arguments,
) -> Result<Option<JobNetwork>, Refusal> {
    let net_mode = arguments
        .text("NetMode")
        .map(|mode| i32::from(mode == "2") * 2);
    let (vswitch_id, vpc_id) = (arguments.text("VSwitchId"), arguments.text("VpcId"));
    let Some(vswitch_id) = vswitch_id else {
        // A VPC by itself says nothing: agents and receivers meet in a vSwitch.
        return match (net_mode, vpc_id) {
            (Some(2), _) | (_, Some(_)) => Err(Refusal::missing("VSwitchId")),
            (Some(_), None) => Ok(Some(JobNetwork::default())),
            (None, None) => Ok(None),
        };
    };
    let found = call.gateway.store.vswitch(&call.tenant, vswitch_id).await?;
    let vswitch = found.ok_or_else(not_found)?;
    if vpc_id.is_some_and(|vpc_id| vpc_id != vswitch.vpc) {
        return Err(Refusal::new(
            "VSwitchIdVpcId.Mismatch",
            "The specified VSwitchId and VpcId does not match.",
        ));
    }
    Ok(Some(JobNetwork {
        net_mode: net_mode.unwrap_or(0),
        vswitch_id: vswitch.id,
        vpc_id: vswitch.vpc,
    }))
}
