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

pub use access_token::{MOST_DAYS, MOST_USES, NewToken, TokenMade, create_token};

use std::str::FromStr;
use std::sync::LazyLock;

use domain::Timestamp;
use domain::name::Name;
use smc::model::*;

use crate::Refusal;
use crate::operation::Operation;

/// Returns every operation, in the order of the reference.
pub fn all() -> &'static [Operation] {
    static ALL: LazyLock<Vec<Operation>> = LazyLock::new(|| {
        vec![
            Operation::of::<DescribeSourceServers>(),
            Operation::of::<ModifySourceServerAttribute>(),
            Operation::of::<DeleteSourceServer>(),
            Operation::of::<CreateReplicationJob>(),
            Operation::of::<DescribeReplicationJobs>(),
            Operation::of::<ModifyReplicationJobAttribute>(),
            Operation::of::<StartReplicationJob>(),
            Operation::of::<StopReplicationJob>(),
            Operation::of::<DeleteReplicationJob>(),
            Operation::of::<CutOverReplicationJob>(),
            Operation::of::<ExplainReplicationJob>(),
            Operation::of::<CreateWorkgroup>(),
            Operation::of::<DescribeWorkgroups>(),
            Operation::of::<ModifyWorkgroupAttribute>(),
            Operation::of::<DeleteWorkgroup>(),
            Operation::of::<AssociateSourceServers>(),
            Operation::of::<DisassociateSourceServers>(),
            Operation::of::<TagResources>(),
            Operation::of::<UntagResources>(),
            Operation::of::<ListTagResources>(),
            Operation::of::<CreateAccessToken>(),
            Operation::of::<ListAccessTokens>(),
            Operation::of::<DisableAccessToken>(),
            Operation::of::<DeleteAccessToken>(),
            Operation::of::<DescribeImages>(),
            Operation::of::<DeleteImage>(),
            image::download(),
        ]
    });
    &ALL
}

/// Parses the id that a call names. A text that is no id names nothing.
fn id<I: FromStr>(text: &str, parameter: &str) -> Result<I, Refusal> {
    text.parse().map_err(|_| Refusal::not_found(parameter))
}

/// Parses a name that keeps the rule of its parameter.
fn name(text: Option<&String>) -> Option<Name> {
    text.map(|text| Name::parse(text).expect("the rule of the parameter is that of names"))
}

/// Parses a time that keeps the rule of its parameter.
fn time(text: Option<&String>) -> Option<Timestamp> {
    text.map(|text| {
        text.parse()
            .expect("the rule of the parameter is that of times")
    })
}
