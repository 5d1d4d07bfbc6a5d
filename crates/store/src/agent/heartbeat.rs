//! A source is alive, and says what became of its assignments.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use domain::status_info::CopiedFreeSpace;
use domain::{Epoch, Failure, JobId, Run, SourceId};
use sqlx::types::Json;

use super::seat::{self, Caller, Seated};
use super::{Inventory, system_info, write_disks};
use crate::{Store, StoreError, Transaction, parking};

/// What an agent says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat<'a> {
    /// What it found.
    pub inventory: &'a Inventory,
    /// What keeps the source from working, if anything.
    pub failure: Option<&'a Failure>,
    /// Seconds until the next one at the latest.
    pub interval_secs: i32,
    /// What became of its assignments.
    pub reports: &'a [Report],
    /// Who it is; `None` from agents that don't say so.
    pub caller: Option<&'a Caller>,
    /// Its clock less the gateway's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
}

/// What became of one assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The job.
    pub job_id: JobId,
    /// Its run.
    pub run: Run,
    /// The epoch that the assignment was made under. Another one's report changes nothing.
    pub epoch: Epoch,
    /// How far it is.
    pub state: ReportedState,
    /// Why it failed, or what it is retrying.
    pub failure: Option<Failure>,
    /// Disks whose free space it copies although the assignment would leave it out.
    pub copied_free_space: Vec<CopiedFreeSpace>,
}

/// How far an agent is with an assignment: `assignment.agent_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportedState {
    /// The agent has said nothing of it yet.
    Assigned,
    /// It looks for the receiver.
    Connecting,
    /// It sends.
    Sending,
    /// The receiver has given receipts for all disks.
    Sent,
    /// It tries again by itself.
    Retrying,
    /// It can't go on.
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

    /// As the column has it.
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

/// What became of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heartbeated {
    /// It is recorded.
    Recorded {
        /// All current assignments of the source, each an encoded `wherry.agent.v1.Assignment`.
        assignments: Vec<Vec<u8>>,
    },
    /// Another agent with the same key is listened to. Nothing was written but that this one called.
    Other {
        /// Name of the other's host.
        host: String,
        /// How long the other is silent.
        silent: Duration,
        /// Whether two servers are known to have one key.
        is_clone: bool,
    },
    /// The source is gone, or going. Nothing was written.
    Gone,
}

impl Store {
    /// Records a heartbeat and answers with all current assignments.
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
            Seated::Other {
                host,
                silent,
                is_clone,
            } => {
                transaction.commit().await?;
                return Ok(Heartbeated::Other {
                    host,
                    silent,
                    is_clone,
                });
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

    /// A text that changes when the assignments of the source do; `None` if the source is gone, or going.
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

/// A report of another run or epoch, or of somebody else's assignment, finds no row: it comes too late to matter.
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
