//! CreateReplicationJob: one source to one image.

use domain::SourceId;
use smc::model::{CreateReplicationJob, CreateReplicationJobAnswer, Operation as _};
use store::client_token::ClientToken;
use store::job::create::{CreateJob, CreateRefusal, NewJob};

use super::{disks, id, increments, name, network, source, tag, time};
use crate::Refusal;
use crate::client_token::digest;
use crate::operation::{Call, Effect, Handle, Resource, Terms};

pub(super) const NO_CONTAINERS: &str =
    "Container images are not offered by this service: leave it out.";
pub(super) const NO_CLOUD_INSTANCES: &str =
    "Intermediate instances are not chosen by the caller of this service: leave it out.";
pub(super) const NO_INSTANCE_TARGET: &str =
    "A job delivers an image here, not an instance: leave it out, and TargetType out or Image.";
pub(super) const NO_RESOURCE_GROUPS: &str =
    "Resource groups are not offered by this service: leave it out.";

impl Handle for CreateReplicationJob {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[
            Resource::one("sourceServer", "SourceId").in_asked_or_own_region(),
            Resource::any("replicationJob").in_asked_or_own_region(),
        ],
        refusals: &[
            "InvalidRegionId.NotFound",
            "InvalidSourceId.NotFound",
            "SourceServerState.Invalid",
            "ReplicationJobDataDiskIndex.Invalid",
            "DataDisk.DuplicateIndex",
            "InvalidSystemDiskSize",
            "InvalidDataDisk.Size",
            "InvalidDisks.System.Size",
            "InvalidDisks.Data.Size",
            "MissingSystemDiskSize",
            "MissingFrequency",
            "MissingMaxNumberOfImageToKeep",
            "MissingDataDisk.Index",
            "MissingDataDisk.Size",
            "QuotaExceeded.ReplicationJob",
            "ReplicationJobName.Duplicate",
            "NumberExceed.Tags",
            "MissingTag.Key",
            "InvalidParameter.TagKey",
            "InvalidParameter.TagValue",
            "InvalidVSwitchId.NotFound",
            "InvalidVpcId.NotFound",
            "VSwitchIdVpcId.Mismatch",
            "MissingVSwitchId",
            "IdempotentParameterMismatch",
        ],
        not_offered: &[
            ("InstanceId", NO_INSTANCE_TARGET),
            ("InstanceType", NO_CLOUD_INSTANCES),
            ("InstanceRamRole", NO_CLOUD_INSTANCES),
            ("LaunchTemplateId", NO_CLOUD_INSTANCES),
            ("LaunchTemplateVersion", NO_CLOUD_INSTANCES),
            ("LicenseType", NO_CLOUD_INSTANCES),
            ("ContainerNamespace", NO_CONTAINERS),
            ("ContainerRepository", NO_CONTAINERS),
            ("ContainerTag", NO_CONTAINERS),
            ("ResourceGroupId", NO_RESOURCE_GROUPS),
            ("SystemDiskPart", disks::NO_PARTITIONS),
            ("DataDisk.N.Part", disks::NO_PARTITIONS),
            ("Disks.System.LVM", disks::NO_PARTITIONS),
            ("Disks.System.Part", disks::NO_PARTITIONS),
            ("Disks.Data.N.LVM", disks::NO_PARTITIONS),
            ("Disks.Data.N.Part", disks::NO_PARTITIONS),
            ("Disks.Data.N.DiskId", NO_INSTANCE_TARGET),
        ],
    };

    async fn handle(self, call: Call) -> Result<CreateReplicationJobAnswer, Refusal> {
        let digest = digest(&self);
        let network = network::asked(self.net_mode, self.v_switch_id, self.vpc_id);
        let source_id = id::<SourceId>(&self.source_id, "SourceId")?;
        let limit_gib = call.gateway.system_disk_limit_gib;
        let sizes = disks::asked(self.system_disk_size, self.data_disk, limit_gib)?;
        let sizes = disks::with_wholes(sizes, self.disks, limit_gib)?;
        let tags = tag::given(self.tag)?;
        let (job_name, image_name) = (name(self.name.as_ref()), name(self.image_name.as_ref()));
        let new = NewJob {
            source_id: &source_id,
            region_id: self.region_id.as_deref().unwrap_or(&call.gateway.region_id),
            own_region: &call.gateway.region_id,
            name: job_name.as_ref(),
            description: self.description.as_deref().unwrap_or_default(),
            image_name: image_name.as_ref(),
            replication_parameters: self.replication_parameters.as_deref().unwrap_or_default(),
            disks: &sizes,
            scheduled_start: time(self.scheduled_start_time.as_ref()),
            valid_until: time(self.valid_time.as_ref()),
            increments: increments::asked(
                self.run_once,
                self.frequency,
                self.max_number_of_image_to_keep,
            )?,
            network: &network,
            tags: &tags,
            client_token: self.client_token.as_deref().map(|token| ClientToken {
                token,
                operation: Self::ACTION,
                digest: &digest,
            }),
        };
        let job_id = match call.gateway.store.create_job(&call.tenant, &new).await? {
            CreateJob::Created(id) => {
                tracing::info!(job_id = %id, source_id = %source_id, "job made");
                id
            }
            CreateJob::Repeated(id) => id,
            CreateJob::Refused(refusal) => return Err(refused(refusal)),
        };
        Ok(CreateReplicationJobAnswer {
            job_id: job_id.to_string(),
        })
    }
}

fn refused(refusal: CreateRefusal) -> Refusal {
    match refusal {
        CreateRefusal::TokenMismatch => token_mismatch(),
        CreateRefusal::RegionNotFound => Refusal::not_found("RegionId"),
        CreateRefusal::SourceNotFound => Refusal::not_found("SourceId"),
        CreateRefusal::SourceState(state) => {
            source::invalid_state(state, &[domain::source::SourceState::Available])
        }
        CreateRefusal::Quota { limit } => Refusal::new(
            "QuotaExceeded.ReplicationJob",
            format!(
                "The maximum number of replication jobs is exceeded. Please submit a ticket to raise the quota. This account may have {limit} jobs: delete some first."
            ),
        ),
        CreateRefusal::NameTaken => name_taken(),
        CreateRefusal::Disks(invalid) => disks::refusal(&invalid),
        CreateRefusal::Network(refusal) => network::refused(refusal),
        CreateRefusal::ScheduledStart => invalid_scheduled_start(),
        CreateRefusal::ValidUntil => invalid_valid_time(),
    }
}

pub(super) fn token_mismatch() -> Refusal {
    Refusal::new(
        "IdempotentParameterMismatch",
        "The request uses the same client token as a previous, but non-identical request.",
    )
}

pub(super) fn name_taken() -> Refusal {
    Refusal::new(
        "ReplicationJobName.Duplicate",
        "The specified replication job name already exists.",
    )
}

pub(super) fn invalid_scheduled_start() -> Refusal {
    Refusal::invalid(
        "ScheduledStartTime",
        "It must be in the future, within 30 days, and before the job expires.",
    )
}

pub(super) fn invalid_valid_time() -> Refusal {
    Refusal::invalid(
        "ValidTime",
        "It must be 7 to 90 days after the job was made, and after its ScheduledStartTime.",
    )
}
