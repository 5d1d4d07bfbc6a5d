//! The operations, one file for each resource or larger operation. An operation is added here and nowhere else.

mod access_token;
mod create_job;
mod describe_jobs;
mod disks;
mod explain_job;
mod image;
mod increments;
mod modify_job;
mod network;
mod partitions;
mod run_job;
mod source;
mod tag;
mod workgroup;

pub use access_token::{NewToken, create_token};

use crate::operation::Operation;

/// Every operation, in the order of the reference.
pub const ALL: &[&Operation] = &[
    &source::DESCRIBE,
    &source::MODIFY,
    &source::DELETE,
    &create_job::CREATE,
    &describe_jobs::DESCRIBE,
    &modify_job::MODIFY,
    &run_job::START,
    &run_job::STOP,
    &run_job::DELETE,
    &increments::CUT_OVER,
    &explain_job::EXPLAIN,
    &workgroup::CREATE,
    &workgroup::DESCRIBE,
    &workgroup::MODIFY,
    &workgroup::DELETE,
    &workgroup::ASSOCIATE,
    &workgroup::DISASSOCIATE,
    &tag::TAG,
    &tag::UNTAG,
    &tag::LIST,
    &access_token::CREATE,
    &access_token::LIST,
    &access_token::DISABLE,
    &access_token::DELETE,
    &image::DESCRIBE,
    &image::DELETE,
    &image::DOWNLOAD,
];
