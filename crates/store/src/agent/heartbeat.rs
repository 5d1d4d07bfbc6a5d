//! Heartbeats: signs of life of a source, with reports on its assignments.

use std::fmt;
use std::str::FromStr;

use domain::status_info::CopiedFreeSpace;
use domain::{Epoch, Failure, JobId, Run, SourceId};
use sqlx::types::Json;

use super::seat::{self, Caller, Holder, Seated};
use super::{Inventory, system_info, write_disks};
use crate::{Store, StoreError, Transaction, parking};

/// The content of a heartbeat.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat<'a> {
    /// Inventory of the agent's server.
    pub inventory: &'a Inventory,
    /// Failure that keeps the source from working, if there is one.
    pub failure: Option<&'a Failure>,
    /// Longest time until the next heartbeat, in seconds.
    pub interval_secs: i32,
    /// Reports on the agent's assignments.
    pub reports: &'a [Report],
    /// Identity of the caller. `None` from agents that do not report it.
    pub caller: Option<&'a Caller>,
    /// The agent's clock less the gateway's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
}

/// A report on one assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The job.
    pub job_id: JobId,
    /// The job's run.
    pub run: Run,
    /// Epoch of the assignment. A report of another epoch changes nothing.
    pub epoch: Epoch,
    /// Progress of the assignment.
    pub state: ReportedState,
    /// Reason for the failure or for the retries.
    pub failure: Option<Failure>,
    /// Disks whose free space the agent copies although the assignment would skip it.
    pub copied_free_space: Vec<CopiedFreeSpace>,
}

/// Progress of an agent with an assignment: `assignment.agent_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportedState {
    /// The agent has not reported on the assignment yet.
    Assigned,
    /// The agent connects to the receiver.
    Connecting,
    /// The agent sends.
    Sending,
    /// The receiver has given receipts for all disks.
    Sent,
    /// The agent retries by itself.
    Retrying,
    /// The agent can't continue.
    Failed,
}

impl ReportedState {
    const ALL: [Self; 6] = [
        Self::Assigned,
        Self::Connecting,
        Self::Sending,
        Self::Sent,
        Self::Retrying,
        Self::Failed,
    ];

    /// Returns the value of the column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Connecting => "connecting",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for ReportedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no state of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of an assignment")]
pub struct UnknownReportedState(String);

impl FromStr for ReportedState {
    type Err = UnknownReportedState;

    fn from_str(text: &str) -> Result<Self, UnknownReportedState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownReportedState(text.to_owned()))
    }
}

/// Outcome of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heartbeated {
    /// The heartbeat is recorded.
    Recorded {
        /// All current assignments of the source, each an encoded `wherry.agent.v1.Assignment`.
        assignments: Vec<Vec<u8>>,
    },
    /// Another agent with the same key is accepted. Only the call of this agent was recorded.
    Other(Holder),
    /// The source is gone or is being deleted. Nothing was written.
    Gone,
}

impl Store {
    /// Records a heartbeat and returns all current assignments.
    pub async fn agent_heartbeat(
        &self,
        source_id: &SourceId,
        heartbeat: Heartbeat<'_>,
    ) -> Result<Heartbeated, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let is_back = match seat::take(&mut transaction, source_id, heartbeat.caller).await? {
            Seated::Listened {
                was_offline,
                is_new,
            } => was_offline || is_new,
            Seated::Other(holder) => {
                transaction.commit().await?;
                return Ok(Heartbeated::Other(holder));
            }
            Seated::Gone => return Ok(Heartbeated::Gone),
        };
        touch(&mut transaction, source_id, &heartbeat).await?;
        if is_back {
            parking::resume_now(&mut transaction, source_id).await?;
        }
        let disks = &heartbeat.inventory.disks;
        write_disks(
            &mut transaction,
            source_id,
            disks,
            heartbeat.failure.is_none(),
        )
        .await?;
        for report in heartbeat.reports {
            record(&mut transaction, source_id, report).await?;
        }
        let assignments = sqlx::query_scalar!(
            "select message from assignment where source_id = $1 order by job_id",
            source_id.as_str()
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Heartbeated::Recorded { assignments })
    }

    /// Returns a text that changes when the assignments of the source change. `None` if the source is gone or is being
    /// deleted.
    pub async fn agent_assignments_version(
        &self,
        source_id: &SourceId,
    ) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"
            select (select coalesce(string_agg(job_id || '/' || epoch || '/' || md5(message), ' ' order by job_id), '')
                    from assignment where source_id = source.id)
                -- Another agent with the same key makes the one that is listened to say that it lives.
                || ' ' || coalesce(rival_instance, '') as "version!"
            from source where id = $1 and not deleting
            "#,
            source_id.as_str()
        )
        .fetch_optional(&self.pool)
        .await?)
    }
}

async fn touch(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
    heartbeat: &Heartbeat<'_>,
) -> Result<(), StoreError> {
    let inventory = heartbeat.inventory;
    sqlx::query!(
        "update source set agent_version = $2, architecture = $3, platform = $4, kernel_level = $5, system_info = $6,
                heartbeat_secs = $7, failure_code = $8, failure_message = $9, last_seen_at = now(), clock_ahead_ms = $10
         where id = $1",
        source_id.as_str(),
        inventory.agent_version,
        inventory.architecture,
        inventory.platform,
        inventory.kernel_level,
        system_info(inventory) as _,
        heartbeat.interval_secs,
        heartbeat.failure.map(|failure| failure.code.as_str()),
        heartbeat.failure.map(|failure| failure.message.as_str()),
        heartbeat.clock_ahead_ms,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Records a report. A report of another run or epoch, or on another source's assignment, finds no row and has no
/// effect.
async fn record(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
    report: &Report,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update assignment set agent_state = $5, failure_code = $6, failure_message = $7, copied_free_space = $8,
                updated_at = now()
         where job_id = $1 and source_id = $2 and run = $3 and epoch = $4
           and (agent_state, failure_code, failure_message, copied_free_space) is distinct from ($5, $6, $7, $8)",
        report.job_id.as_str(),
        source_id.as_str(),
        report.run.0,
        report.epoch.0,
        report.state.as_str(),
        report.failure.as_ref().map(|failure| failure.code.as_str()),
        report
            .failure
            .as_ref()
            .map(|failure| failure.message.as_str()),
        Json(&report.copied_free_space) as _,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
