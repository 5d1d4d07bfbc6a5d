//! The runs of a job: written with the transitions that begin and end them, and shown by the API.

use std::collections::HashMap;

use domain::job::Event;
use domain::message::JobChanged;
use domain::{ImageId, Run, Timestamp};
use sqlx::postgres::PgConnection;

use crate::row::{parse, parse_opt};
use crate::{StoreError, Transaction};

/// Maximum number of runs of a job that are shown, the newest ones.
const MOST_SHOWN: i64 = 50;

/// Origin of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// The tenant started the run.
    Manual,
    /// A timer started the run.
    Schedule,
}

impl RunKind {
    const ALL: [Self; 2] = [Self::Manual, Self::Schedule];

    /// Returns the name in the database.
    fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Schedule => "schedule",
        }
    }
}

impl std::str::FromStr for RunKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(())
    }
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// Number of the run.
    pub run: Run,
    /// Origin of the run.
    pub kind: RunKind,
    /// Time of the start.
    pub started_at: Timestamp,
    /// Time at which the run delivered, failed or was stopped.
    pub ended_at: Option<Timestamp>,
    /// The image that the run delivered, while the image exists.
    pub image_id: Option<ImageId>,
}

/// Records that a run has begun or ended, in the transaction that moved the job.
pub(super) async fn record(
    transaction: &mut Transaction<'_>,
    changed: &JobChanged,
    kind: RunKind,
) -> Result<(), StoreError> {
    if changed.event == Event::Start {
        sqlx::query!(
            "insert into job_run (job_id, run, kind) values ($1, $2, $3)",
            changed.job_id.as_str(),
            changed.run.0,
            kind.as_str(),
        )
        .execute(&mut **transaction)
        .await?;
    } else if changed.from.is_running() && !changed.to.is_running() {
        sqlx::query!(
            "update job_run set ended_at = now() where job_id = $1 and run = $2",
            changed.job_id.as_str(),
            changed.run.0,
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// Returns the last runs of these jobs, by job, each list in the order of the runs.
pub(super) async fn of_jobs(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<HashMap<String, Vec<JobRun>>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select last.job_id as "job_id!", last.run as "run!", last.kind as "kind!", last.started_at as "started_at!",
            last.ended_at, image.id as "image_id?"
        from unnest($1::text[]) as job (id)
        cross join lateral (
            select * from job_run where job_run.job_id = job.id order by run desc limit $2) as last
        left join image on image.job_id = last.job_id and image.run = last.run and image.state = 'available'
        order by last.job_id, last.run
        "#,
        ids,
        MOST_SHOWN,
    )
    .fetch_all(connection)
    .await?;
    let mut runs: HashMap<String, Vec<JobRun>> = HashMap::new();
    for row in rows {
        runs.entry(row.job_id).or_default().push(JobRun {
            run: Run(row.run),
            kind: parse("job_run.kind", &row.kind)?,
            started_at: row.started_at.into(),
            ended_at: row.ended_at.map(Timestamp::from),
            image_id: parse_opt("image.id", row.image_id.as_deref())?,
        });
    }
    Ok(runs)
}
