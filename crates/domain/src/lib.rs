//! Wherry's domain: ids, the job's state machine, the rules for names, sizes and times, and the failures that a tenant
//! can read. Everything here is a pure value or a pure function; nothing does I/O.

pub mod clock;
pub mod disk;
pub mod failure;
pub mod fence;
pub mod id;
pub mod job;
pub mod message;
pub mod name;
pub mod parameters;
pub mod policy;
pub mod printable;
pub mod rate;
pub mod seat;
pub mod source;
pub mod status_info;
pub mod tag;
pub mod target_disks;
pub mod timestamp;
pub mod workgroup;

pub use clock::Clock;
pub use failure::{Failure, FailureCode};
pub use fence::{Epoch, Run};
pub use id::{
    AccessTokenId, ImageId, InstanceId, JobId, RequestId, SourceId, TenantId, UserId, WorkgroupId,
};
pub use printable::printable;
pub use timestamp::Timestamp;
