//! ModifyReplicationJobAttribute.

use store::job::modify::{JobChange, ModifyJob};

use super::create_job::{
    NO_CLOUD_INSTANCES, NO_CONTAINERS, NO_INSTANCE_TARGET, NO_RESOURCE_GROUPS,
    invalid_scheduled_start, invalid_valid_time, name_taken,
};
use super::{disks, increments, network, run_job};
use crate::Refusal;
use crate::answer::Answer;
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, Resource};

const FIXED: &str =
    "A job keeps it for all its life: leave it out, or delete the job and create another.";
const OTHER_SIZES: &str =
    "Sizes are changed with SystemDiskSize and DataDisk.N.Size: leave it out.";
const OTHER_TAGS: &str = "Tags are changed with TagResources and UntagResources: leave it out.";

pub(super) const MODIFY: Operation = Operation {
    name: "ModifyReplicationJobAttribute",
    summary: "Changes a job: Name and Description for all its life, ValidTime and bandwidth_limit in ReplicationParameters until it has delivered or expired, consistency there as well while it does not run, Frequency and MaxNumberOfImageToKeep in Ready and Waiting, the rest in Ready only. What is not given stays.",
    parameters: &[
        Parameter::required("JobId", Rule::Text(128), "The job."),
        Parameter::optional("Name", Rule::Name, "The new name, unique in the account."),
        Parameter::optional("Description", Rule::Name, "The new description."),
        Parameter::optional(
            "ValidTime",
            Rule::Time,
            "When the job expires: 7 to 90 days after it was made.",
        ),
        Parameter::optional(
            "TargetType",
            Rule::OneOfAnyCase(&["Image"]),
            "Image, which is what every job delivers.",
        ),
        Parameter::optional("ImageName", Rule::Name, "The new name of the image."),
        Parameter::optional(
            "ScheduledStartTime",
            Rule::Time,
            "When the job starts by itself.",
        ),
        Parameter::optional(
            "SystemDiskSize",
            disks::SYSTEM_DISK_GIB,
            "GiB of the image's system disk.",
        ),
        disks::DATA_DISK_INDEX,
        disks::DATA_DISK_SIZE,
        Parameter::optional(
            "ReplicationParameters",
            Rule::ReplicationParameters,
            "As for CreateReplicationJob; takes the place of what the job has. After the first start only bandwidth_limit may differ from that, which a run takes up within seconds, without beginning anew; and, while the job does not run, consistency.",
        ),
        network::NET_MODE,
        network::VSWITCH_ID,
        network::VPC_ID,
        Parameter::not_offered("InstanceId", NO_INSTANCE_TARGET),
        increments::FREQUENCY,
        increments::IMAGES_TO_KEEP,
        Parameter::not_offered("InstanceType", NO_CLOUD_INSTANCES),
        Parameter::not_offered("InstanceRamRole", NO_CLOUD_INSTANCES),
        Parameter::not_offered("LaunchTemplateId", NO_CLOUD_INSTANCES),
        Parameter::not_offered("LaunchTemplateVersion", NO_CLOUD_INSTANCES),
        Parameter::not_offered("ContainerNamespace", NO_CONTAINERS),
        Parameter::not_offered("ContainerRepository", NO_CONTAINERS),
        Parameter::not_offered("ContainerTag", NO_CONTAINERS),
        Parameter::not_offered("SystemDiskPart", disks::NO_PARTITIONS),
        Parameter::not_offered("DataDisk.N.Part", disks::NO_PARTITIONS),
        Parameter::not_offered("Disks", OTHER_SIZES),
        Parameter::not_offered("SourceId", FIXED),
        Parameter::not_offered("RunOnce", FIXED),
        Parameter::not_offered("JobType", FIXED),
        Parameter::not_offered("LicenseType", NO_CLOUD_INSTANCES),
        Parameter::not_offered("ResourceGroupId", NO_RESOURCE_GROUPS),
        Parameter::not_offered("Tag", OTHER_TAGS),
    ],
    answer: &[],
    refusals: &[
        "InvalidJobId.NotFound",
        "ReplicationJob.InvalidStatus",
        "ReplicationJobName.Duplicate",
        "ReplicationJobDataDiskIndex.Invalid",
        "DataDisk.DuplicateIndex",
        "InvalidSystemDiskSize",
        "InvalidDataDisk.Size",
        "MissingDataDisk.Index",
        "MissingDataDisk.Size",
        "InvalidVSwitchId.NotFound",
        "InvalidVpcId.NotFound",
        "VSwitchIdVpcId.Mismatch",
        "MissingVSwitchId",
    ],
    effect: Effect::Writes,
    resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
    handler: |call, arguments| Box::pin(modify(call, arguments)),
};

async fn modify(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = run_job::job_id(&arguments)?;
    let (frequency_hours, images_to_keep) = increments::given(&arguments);
    let change = JobChange {
        frequency_hours,
        images_to_keep,
        network: network::asked(&arguments),
        names_target: arguments.text("TargetType").is_some(),
        name: arguments.name("Name").cloned(),
        description: arguments.text("Description").map(str::to_owned),
        valid_until: arguments.time("ValidTime"),
        image_name: arguments.name("ImageName").cloned(),
        replication_parameters: arguments.text("ReplicationParameters").map(str::to_owned),
        disks: disks::asked(&arguments, call.gateway.system_disk_limit_gib)?,
        scheduled_start: arguments.time("ScheduledStartTime"),
    };
    match call
        .gateway
        .store
        .modify_job(&call.tenant, &id, &change)
        .await?
    {
        ModifyJob::Modified => Ok(Answer::done()),
        ModifyJob::Refused { state, allowed } => Err(run_job::invalid_status(state, &allowed)),
        ModifyJob::DeliversOnce => Err(increments::delivers_once(frequency_hours.is_some())),
        ModifyJob::NameTaken => Err(name_taken()),
        ModifyJob::Disks(invalid) => Err(disks::refusal(&invalid)),
        ModifyJob::ScheduledStart => Err(invalid_scheduled_start()),
        ModifyJob::ValidUntil => Err(invalid_valid_time()),
        ModifyJob::Network(refusal) => Err(network::refused(refusal)),
        ModifyJob::NotFound => Err(Refusal::not_found("JobId")),
    }
}

#[cfg(test)]
mod tests {
    use domain::job::State;

    use super::*;

    #[test]
    fn a_refusal_names_the_statuses_that_would_do() {
        let refusal = run_job::invalid_status(
            State::Finished,
            &[State::Ready, State::Preparing, State::Syncing],
        );
        assert_eq!(
            refusal.message,
            "The specified replication job status: Finished is invalid. This operation can only be performed in the following status: Ready, Running."
        );
    }
}
