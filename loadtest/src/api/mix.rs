//! The kinds of calls, and the frequency of each.

use clap::ValueEnum;
use rand::RngExt as _;
use serde::Serialize;

/// The share of reads and changes among the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// The calls of consoles and scripts: lists and look-ups, and a change now and then.
    Read,
    /// Half changes.
    Write,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A job by its id, as a client does that waits for the job.
    PollJob,
    /// A page of jobs.
    ListJobs,
    /// A page of sources.
    ListSources,
    /// Another description of a source.
    ModifySource,
    /// A job of a source that is free.
    CreateJob,
    /// A start of a job that is ready, made here or before.
    StartJob,
    /// A stop of a job that waits for its next run.
    StopJob,
    /// A removal of a job that is stopped.
    DeleteJob,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::PollJob,
        Self::ListJobs,
        Self::ListSources,
        Self::ModifySource,
        Self::CreateJob,
        Self::StartJob,
        Self::StopJob,
        Self::DeleteJob,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PollJob => "DescribeReplicationJobs, one by its id",
            Self::ListJobs => "DescribeReplicationJobs, a page",
            Self::ListSources => "DescribeSourceServers, a page",
            Self::ModifySource => "ModifySourceServerAttribute",
            Self::CreateJob => "CreateReplicationJob",
            Self::StartJob => "StartReplicationJob",
            Self::StopJob => "StopReplicationJob",
            Self::DeleteJob => "DeleteReplicationJob",
        }
    }
}

impl Mix {
    /// Parts of a hundred, in the order of [`Kind::ALL`].
    fn weights(self) -> [u32; 8] {
        match self {
            Self::Read => [55, 25, 15, 1, 1, 1, 1, 1],
            Self::Write => [30, 10, 10, 10, 10, 10, 10, 10],
        }
    }

    pub(super) fn draw(self) -> Kind {
        let mut rest = rand::rng().random_range(0..self.weights().iter().sum());
        for (kind, weight) in Kind::ALL.into_iter().zip(self.weights()) {
            if rest < weight {
                return kind;
            }
            rest -= weight;
        }
        Kind::PollJob
    }
}
