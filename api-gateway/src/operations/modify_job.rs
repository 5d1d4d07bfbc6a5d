//! ModifyReplicationJobAttribute.

use domain::JobId;
use smc::model::{Done, ModifyReplicationJobAttribute};
use store::job::modify::{JobChange, ModifyJob};

use super::create_job::{
    NO_CLOUD_INSTANCES, NO_CONTAINERS, NO_INSTANCE_TARGET, NO_RESOURCE_GROUPS,
    invalid_scheduled_start, invalid_valid_time, name_taken,
};
use super::{disks, id, increments, name, network, run_job, time};
use crate::Refusal;
use crate::operation::{Call, Effect, Handle, Resource, Terms};

const FIXED: &str =
    "A job keeps it for all its life: leave it out, or delete the job and create another.";
const OTHER_SIZES: &str =
    "Sizes are changed with SystemDiskSize and DataDisk.N.Size: leave it out.";
const OTHER_TAGS: &str = "Tags are changed with TagResources and UntagResources: leave it out.";

impl Handle for ModifyReplicationJobAttribute {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[Resource::one("replicationJob", "JobId").where_it_lies()],
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
        not_offered: &[
            ("InstanceId", NO_INSTANCE_TARGET),
            ("InstanceType", NO_CLOUD_INSTANCES),
            ("InstanceRamRole", NO_CLOUD_INSTANCES),
            ("LaunchTemplateId", NO_CLOUD_INSTANCES),
            ("LaunchTemplateVersion", NO_CLOUD_INSTANCES),
            ("ContainerNamespace", NO_CONTAINERS),
            ("ContainerRepository", NO_CONTAINERS),
            ("ContainerTag", NO_CONTAINERS),
            ("SystemDiskPart", disks::NO_PARTITIONS),
            ("DataDisk.N.Part", disks::NO_PARTITIONS),
            ("Disks", OTHER_SIZES),
            ("SourceId", FIXED),
            ("RunOnce", FIXED),
            ("JobType", FIXED),
            ("LicenseType", NO_CLOUD_INSTANCES),
            ("ResourceGroupId", NO_RESOURCE_GROUPS),
            ("Tag", OTHER_TAGS),
        ],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<JobId>(&self.job_id, "JobId")?;
        let limit_gib = call.gateway.system_disk_limit_gib;
        let change = JobChange {
            frequency_hours: self.frequency,
            images_to_keep: self.max_number_of_image_to_keep,
            network: network::asked(self.net_mode, self.v_switch_id, self.vpc_id),
            names_target: self.target_type.is_some(),
            name: name(self.name.as_ref()),
            description: self.description,
            valid_until: time(self.valid_time.as_ref()),
            image_name: name(self.image_name.as_ref()),
            replication_parameters: self.replication_parameters,
            disks: disks::asked(self.system_disk_size, self.data_disk, limit_gib)?,
            scheduled_start: time(self.scheduled_start_time.as_ref()),
        };
        let store = &call.gateway.store;
        match store.modify_job(&call.tenant, &id, &change).await? {
            ModifyJob::Modified => Ok(Done {}),
            ModifyJob::Refused { state, allowed } => Err(run_job::invalid_status(state, &allowed)),
            ModifyJob::DeliversOnce => Err(increments::delivers_once(self.frequency.is_some())),
            ModifyJob::NameTaken => Err(name_taken()),
            ModifyJob::Disks(invalid) => Err(disks::refusal(&invalid)),
            ModifyJob::ScheduledStart => Err(invalid_scheduled_start()),
            ModifyJob::ValidUntil => Err(invalid_valid_time()),
            ModifyJob::Network(refusal) => Err(network::refused(refusal)),
            ModifyJob::NotFound => Err(Refusal::not_found("JobId")),
        }
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
