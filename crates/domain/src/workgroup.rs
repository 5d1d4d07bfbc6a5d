//! Workgroups: sources that are migrated together, and what can be said of them all at once.
//!
//! The API names four statuses and three warnings and explains none. Here they follow from the most recent job of each source; a job
//! that is being deleted no longer counts.

use std::fmt;
use std::str::FromStr;

use crate::SourceId;
use crate::job::State;

/// The API's `Status` of a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkgroupStatus {
    /// No source has a job that was started.
    NotStarted,
    /// Some migration is under way, or stands still.
    InProgress,
    /// Every source is delivered at least once; what is left is to cut over jobs that wait for their next run, or do their last.
    Cutover,
    /// Every source has a job that is finished.
    Completed,
}

/// The API's `WarningType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WarningType {
    /// The source's job failed.
    InError,
    /// The source has no job.
    UnRelated,
    /// The source can't be migrated as it is: its agent is silent or reports an error.
    NotPassed,
}

/// What is known of one source of a workgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The source.
    pub source_id: SourceId,
    /// Whether its agent was heard lately and reports no error.
    pub is_healthy: bool,
    /// The state of its most recent job.
    pub job: Option<State>,
    /// Whether that job was cut over: the run that it does is its last.
    pub is_cut_over: bool,
}

impl WorkgroupStatus {
    /// Every status, in the order of a migration.
    pub const ALL: [Self; 4] = [
        Self::NotStarted,
        Self::InProgress,
        Self::Cutover,
        Self::Completed,
    ];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::InProgress => "InProgress",
            Self::Cutover => "Cutover",
            Self::Completed => "Completed",
        }
    }

    /// The status of a workgroup with these sources.
    pub fn derive(members: &[Member]) -> Self {
        let all = |passes: fn(&Member) -> bool| members.iter().all(passes);
        if all(|member| matches!(member.job, None | Some(State::Ready))) {
            Self::NotStarted
        } else if all(|member| member.job == Some(State::Finished)) {
            Self::Completed
        } else if all(Member::is_delivered) {
            Self::Cutover
        } else {
            Self::InProgress
        }
    }
}

impl Member {
    /// Whether it is delivered at least once, and nothing but a cut-over is left.
    fn is_delivered(&self) -> bool {
        self.job.is_some_and(|state| match state {
            State::Finished | State::Waiting => true,
            State::Preparing
            | State::Syncing
            | State::Parked
            | State::Processing
            | State::Cleaning => self.is_cut_over,
            State::Ready | State::Stopped | State::InError | State::Expired | State::Deleting => {
                false
            }
        })
    }
}

impl WarningType {
    /// Every warning.
    pub const ALL: [Self; 3] = [Self::InError, Self::UnRelated, Self::NotPassed];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InError => "InError",
            Self::UnRelated => "UnRelated",
            Self::NotPassed => "NotPassed",
        }
    }

    /// Whether it holds of a source. A source that is delivered need not be healthy any more.
    pub fn holds_of(self, member: &Member) -> bool {
        match self {
            Self::InError => member.job == Some(State::InError),
            Self::UnRelated => member.job.is_none(),
            Self::NotPassed => !member.is_healthy && member.job != Some(State::Finished),
        }
    }
}

impl fmt::Display for WorkgroupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no status of a workgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a status of a workgroup")]
pub struct UnknownStatus(String);

impl FromStr for WorkgroupStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(job: Option<State>) -> Member {
        Member {
            source_id: SourceId::generate(),
            is_healthy: true,
            job,
            is_cut_over: false,
        }
    }

    #[test]
    fn a_last_run_is_part_of_the_cut_over() {
        let mut last = member(Some(State::Syncing));
        assert_eq!(
            WorkgroupStatus::derive(std::slice::from_ref(&last)),
            WorkgroupStatus::InProgress
        );
        last.is_cut_over = true;
        let members = [last, member(Some(State::Finished))];
        assert_eq!(WorkgroupStatus::derive(&members), WorkgroupStatus::Cutover);
    }

    #[test]
    fn the_status_follows_from_the_jobs_of_all_sources() {
        use State::{Expired, Finished, InError, Ready, Syncing, Waiting};
        for (jobs, wanted) in [
            (vec![], WorkgroupStatus::NotStarted),
            (vec![None, Some(Ready)], WorkgroupStatus::NotStarted),
            (vec![None, Some(Syncing)], WorkgroupStatus::InProgress),
            (
                vec![Some(Ready), Some(Finished)],
                WorkgroupStatus::InProgress,
            ),
            (vec![None, Some(Waiting)], WorkgroupStatus::InProgress),
            (vec![Some(InError)], WorkgroupStatus::InProgress),
            (
                vec![Some(Expired), Some(Finished)],
                WorkgroupStatus::InProgress,
            ),
            (
                vec![Some(Waiting), Some(Finished)],
                WorkgroupStatus::Cutover,
            ),
            (vec![Some(Waiting)], WorkgroupStatus::Cutover),
            (
                vec![Some(Finished), Some(Finished)],
                WorkgroupStatus::Completed,
            ),
        ] {
            let members: Vec<Member> = jobs.iter().copied().map(member).collect();
            assert_eq!(WorkgroupStatus::derive(&members), wanted, "{jobs:?}");
        }
    }

    #[test]
    fn warnings_name_what_keeps_a_source_from_its_migration() {
        let silent = |job| Member {
            is_healthy: false,
            ..member(job)
        };
        let holding = |member: &Member| -> Vec<WarningType> {
            WarningType::ALL
                .into_iter()
                .filter(|warning| warning.holds_of(member))
                .collect()
        };
        assert_eq!(holding(&member(None)), [WarningType::UnRelated]);
        assert_eq!(
            holding(&silent(None)),
            [WarningType::UnRelated, WarningType::NotPassed]
        );
        assert_eq!(
            holding(&member(Some(State::InError))),
            [WarningType::InError]
        );
        assert_eq!(
            holding(&silent(Some(State::Ready))),
            [WarningType::NotPassed]
        );
        assert_eq!(holding(&silent(Some(State::Finished))), []);
        assert_eq!(holding(&member(Some(State::Syncing))), []);
    }

    #[test]
    fn names_read_back() {
        for status in WorkgroupStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
    }
}
