//! Workgroups: sources that are migrated together, with one status for all of them.
//!
//! The API names four statuses and three warnings and explains none. Here they are derived from the most recent job of
//! each source. A job that is being deleted does not count.

use std::fmt;
use std::str::FromStr;

use crate::SourceId;
use crate::job::State;

/// The API's `Status` of a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkgroupStatus {
    /// No source has a job that was started.
    NotStarted,
    /// At least one migration is under way or stands still.
    InProgress,
    /// Every source has been delivered at least once. The jobs that are left wait for their cut-over or do their last
    /// run.
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
    /// The source can't be migrated now: its agent is silent or reports an error.
    NotPassed,
}

/// The facts about one source of a workgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The source.
    pub source_id: SourceId,
    /// True if the agent reported lately and reports no error.
    pub is_healthy: bool,
    /// The state of the source's most recent job.
    pub job: Option<State>,
    /// True if that job was cut over: its present run is its last.
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

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::InProgress => "InProgress",
            Self::Cutover => "Cutover",
            Self::Completed => "Completed",
        }
    }

    /// Derives the status of a workgroup with these sources.
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
    /// Returns true if the source has been delivered at least once and only a cut-over is left.
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

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InError => "InError",
            Self::UnRelated => "UnRelated",
            Self::NotPassed => "NotPassed",
        }
    }

    /// Returns true if the warning holds of a source. A delivered source need not be healthy any more.
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
