//! CreateReplicationJob: one source to one image.

use serde_json::json;
use store::client_token::ClientToken;
use store::job::create::{CreateJob, CreateRefusal, NewJob};

use super::{disks, increments, network, source, tag};
use crate::Refusal;
use crate::answer::Answer;
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, Resource, field};

const NAME: &str = "CreateReplicationJob";

pub(super) const NO_CONTAINERS: &str =
    "Container images are not offered by this service: leave it out.";
pub(super) const NO_CLOUD_INSTANCES: &str =
    "Intermediate instances are not chosen by the caller of this service: leave it out.";
pub(super) const NO_INSTANCE_TARGET: &str =
    "A job delivers an image here, not an instance: leave it out, and TargetType out or Image.";
pub(super) const NO_RESOURCE_GROUPS: &str =
    "Resource groups are not offered by this service: leave it out.";

pub(super) const CREATE: Operation = Operation {
    name: NAME,
    summary: "Makes a job that migrates a source to an image, once or again and again. It is started by StartReplicationJob, or by itself at ScheduledStartTime.",
    parameters: &[
        Parameter::optional(
            "RegionId",
            Rule::Text(64),
            "The region of the image: the one of this service, which is the default, or another that its operator has given to the account.",
        ),
        Parameter::required(
            "SourceId",
            Rule::Text(128),
            "The source, which must be Available.",
        ),
        Parameter::optional(
            "SystemDiskSize",
            disks::SYSTEM_DISK_GIB,
            "GiB of the image's system disk: 20 to 500, unless the operator allows more; not smaller than the source's disk. Mandatory without Disks.System.Size.",
        ),
        disks::DATA_DISK_INDEX,
        disks::DATA_DISK_SIZE,
        disks::DISKS_SYSTEM_SIZE,
        disks::DISKS_DATA_SIZE,
        Parameter::optional(
            "ClientToken",
            Rule::Token(64),
            "Makes repeating the call safe: the same token with the same parameters answers with the same job, for 24 hours.",
        ),
        Parameter::optional(
            "Name",
            Rule::Name,
            "The job's name, unique in the account; default Job_<JobId>.",
        ),
        Parameter::optional(
            "Description",
            Rule::Name,
            "The job's description; the rule is that of names.",
        ),
        Parameter::optional(
            "TargetType",
            Rule::OneOfAnyCase(&["Image"]),
            "What the job delivers; default Image.",
        ),
        Parameter::optional(
            "ImageName",
            Rule::Name,
            "The image's name; default Image_<JobId>. With RunOnce=false, _CYCLE_ and the number of the run are added; if another image has the name, the job's id.",
        ),
        network::NET_MODE,
        network::VSWITCH_ID,
        network::VPC_ID,
        Parameter::optional(
            "ReplicationParameters",
            Rule::ReplicationParameters,
            "JSON text of at most 2048 characters: bandwidth_limit (Kbit/s, 0 for none), compress_level (0 to 19), checksum (re-read and compare the copied disks), bad_sectors (fail, or zero to copy what can't be read as zeros), use_ssh_tunnel (copy over TLS on TCP only, encrypted as always), efficiency_level (1, 2 or 3: one, two or four threads of the source read and send; 2 without it), free_space (skip, the default: what the file systems of a disk that nobody uses call free stays behind, and the image has zeros there; copy: every byte), consistency (crash, the default: the image is what the disks held at one moment, and a disk that is written while it is copied ends the run with SourceServer.DiskChanged; fuzzy: the image is delivered all the same, and said to be not one moment in time).",
        ),
        Parameter::optional(
            "ScheduledStartTime",
            Rule::Time,
            "When the job starts by itself: in the future, within 30 days and within its validity.",
        ),
        Parameter::optional(
            "ValidTime",
            Rule::Time,
            "When the job expires: 7 to 90 days from now; default 30 days.",
        ),
        tag::TAG_KEY,
        tag::TAG_VALUE,
        increments::RUN_ONCE,
        increments::FREQUENCY,
        increments::IMAGES_TO_KEEP,
        Parameter::optional(
            "JobType",
            Rule::Only(
                "0",
                "Server migrations are what this service offers: leave JobType out or 0.",
            ),
            "0, a server migration.",
        ),
        Parameter::not_offered("InstanceId", NO_INSTANCE_TARGET),
        Parameter::not_offered("InstanceType", NO_CLOUD_INSTANCES),
        Parameter::not_offered("InstanceRamRole", NO_CLOUD_INSTANCES),
        Parameter::not_offered("LaunchTemplateId", NO_CLOUD_INSTANCES),
        Parameter::not_offered("LaunchTemplateVersion", NO_CLOUD_INSTANCES),
        Parameter::not_offered("LicenseType", NO_CLOUD_INSTANCES),
        Parameter::not_offered("ContainerNamespace", NO_CONTAINERS),
        Parameter::not_offered("ContainerRepository", NO_CONTAINERS),
        Parameter::not_offered("ContainerTag", NO_CONTAINERS),
        Parameter::not_offered("ResourceGroupId", NO_RESOURCE_GROUPS),
        Parameter::not_offered("SystemDiskPart", disks::NO_PARTITIONS),
        Parameter::not_offered("DataDisk.N.Part", disks::NO_PARTITIONS),
        Parameter::not_offered("Disks.System.LVM", disks::NO_PARTITIONS),
        Parameter::not_offered("Disks.System.Part", disks::NO_PARTITIONS),
        Parameter::not_offered("Disks.Data.N.LVM", disks::NO_PARTITIONS),
        Parameter::not_offered("Disks.Data.N.Part", disks::NO_PARTITIONS),
        Parameter::not_offered("Disks.Data.N.DiskId", NO_INSTANCE_TARGET),
    ],
    answer: &[field("JobId", "string", "The job.")],
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
    effect: Effect::Writes,
    resources: &[
        Resource::one("sourceServer", "SourceId").in_asked_or_own_region(),
        Resource::any("replicationJob").in_asked_or_own_region(),
    ],
    handler: |call, arguments| Box::pin(create(call, arguments)),
};

async fn create(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let network = network::asked(&arguments);
    let source_id = source::source_id(&arguments)?;
    let asked = disks::asked_with_system(&arguments, call.gateway.system_disk_limit_gib)?;
    let tags = tag::given(&arguments)?;
    let digest = arguments.digest();
    let new = NewJob {
        source_id: &source_id,
        region_id: arguments
            .text("RegionId")
            .unwrap_or(&call.gateway.region_id),
        own_region: &call.gateway.region_id,
        name: arguments.name("Name"),
        description: arguments.text("Description").unwrap_or_default(),
        image_name: arguments.name("ImageName"),
        replication_parameters: arguments.text("ReplicationParameters").unwrap_or_default(),
        disks: &asked,
        scheduled_start: arguments.time("ScheduledStartTime"),
        valid_until: arguments.time("ValidTime"),
        increments: increments::asked(&arguments)?,
        network: &network,
        tags: &tags,
        client_token: arguments.text("ClientToken").map(|token| ClientToken {
            token,
            operation: NAME,
            digest: &digest,
        }),
    };
    match call.gateway.store.create_job(&call.tenant, &new).await? {
        CreateJob::Created(id) => {
            tracing::info!(job_id = %id, source_id = %source_id, "job made");
            Ok(Answer::fields(json!({ "JobId": id })))
        }
        CreateJob::Repeated(id) => Ok(Answer::fields(json!({ "JobId": id }))),
        CreateJob::Refused(refusal) => Err(refused(refusal)),
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
        "It lies in the future, within 30 days, and before the job expires.",
    )
}

pub(super) fn invalid_valid_time() -> Refusal {
    Refusal::invalid(
        "ValidTime",
        "It lies 7 to 90 days after the job was made, and after its ScheduledStartTime.",
    )
}
