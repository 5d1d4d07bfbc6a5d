//! Jobs that deliver repeatedly: the timer of the next run, the images that are kept, and the end by a cut-over.
//!
//! Each run copies everything and delivers an image of its own. Between two runs such a job holds no instance: the
//! image is a second name of the instance's disks, which must not be written again.

use domain::job::{Event, State};
use domain::message::{Command, Message, TraceHeaders};
use domain::source::SourceState;
use domain::{JobId, TenantId};

use super::start::{self, StartJob};
use super::transition::{Change, Guard, Transitioned, apply};
use super::{Increments, TIMER_CHANNEL};
use crate::bytes::OverQuota;
use crate::row::parse;
use crate::{Store, StoreError, Transaction, outbox};

/// Outcome of a request to end a job that delivers repeatedly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutOver {
    /// The job is finished, or has started its last run.
    Done,
    /// The job's state does not allow a cut-over.
    Refused(State),
    /// The job's last run can't start while its source is in this state.
    Source(SourceState),
    /// The last run would store more than the tenant's quota of bytes.
    OverQuota(OverQuota),
    /// The job does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Ends a waiting job: at once, or with `sync_data` after one more run.
    ///
    /// # Errors
    /// The database fails.
    pub async fn cut_over_job(
        &self,
        tenant: &TenantId,
        id: &JobId,
        sync_data: bool,
        headers: &TraceHeaders,
    ) -> Result<CutOver, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        let Some(state) = sqlx::query_scalar!(
            "select state from job where tenant = $1 and id = $2 for no key update",
            tenant.as_str(),
            id.as_str()
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(CutOver::NotFound);
        };
        let state: State = parse("job.state", &state)?;
        if state != State::Waiting {
            return Ok(CutOver::Refused(state));
        }
        if sync_data {
            sqlx::query!("update job set cut_over = true where id = $1", id.as_str())
                .execute(&mut *transaction)
                .await?;
            return Ok(
                match start::start(&mut transaction, tenant, id, "cut over", headers).await? {
                    StartJob::Started => {
                        transaction.commit().await?;
                        CutOver::Done
                    }
                    StartJob::Refused(state) => CutOver::Refused(state),
                    StartJob::Source(state) => CutOver::Source(state),
                    StartJob::OverQuota(over) => CutOver::OverQuota(over),
                    StartJob::NotFound => CutOver::NotFound,
                },
            );
        }
        let change = Change {
            event: Event::CutOver,
            guard: Guard::Tenant(tenant),
            actor: "api",
            detail: "",
            failure: None,
            headers,
        };
        Ok(match apply(&mut transaction, id, change).await? {
            Transitioned::Moved(_) | Transitioned::Recorded => {
                transaction.commit().await?;
                CutOver::Done
            }
            Transitioned::Refused(state) | Transitioned::Ignored { state, .. } => {
                CutOver::Refused(state)
            }
            Transitioned::NotFound | Transitioned::Fenced => CutOver::NotFound,
        })
    }
}

/// Sets the timer of a waiting job's next run: one interval after the last start, and not in the past.
pub(super) async fn set_next_run(
    transaction: &mut Transaction<'_>,
    id: &JobId,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into timer (job_id, kind, due_at)
         select id, 'run', greatest(now(), started_at + make_interval(hours => frequency_hours))
         from job where id = $1 and state = 'waiting' and frequency_hours is not null
         on conflict (job_id, kind) do update set due_at = excluded.due_at",
        id.as_str(),
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!("select pg_notify($1, '')", TIMER_CHANNEL)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Asks for the removal of a job's oldest images above the number that it keeps.
pub(crate) async fn prune_images(
    transaction: &mut Transaction<'_>,
    id: &JobId,
) -> Result<(), StoreError> {
    let removed = sqlx::query_scalar!(
        "update image set state = 'deleting' where id in (
             select image.id from image join job on job.id = image.job_id
             where job.id = $1 and job.images_to_keep is not null and image.state = 'available'
             order by image.run desc offset (select images_to_keep from job where id = $1))
         returning id",
        id.as_str(),
    )
    .fetch_all(&mut **transaction)
    .await?;
    for image in removed {
        let command = Command::RemoveImage {
            image_id: parse("image.id", &image)?,
        };
        outbox::append(
            transaction,
            &Message::Command(command),
            &TraceHeaders::new(),
        )
        .await?;
    }
    Ok(())
}

/// Changes the interval of a job and the number of images that it keeps. The timer and images of a waiting job follow
/// at once.
pub(super) async fn change(
    transaction: &mut Transaction<'_>,
    id: &JobId,
    frequency_hours: Option<i32>,
    images_to_keep: Option<i32>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update job set frequency_hours = coalesce($2, frequency_hours), images_to_keep = coalesce($3, images_to_keep)
         where id = $1",
        id.as_str(),
        frequency_hours,
        images_to_keep,
    )
    .execute(&mut **transaction)
    .await?;
    if frequency_hours.is_some() {
        set_next_run(transaction, id).await?;
    }
    if images_to_keep.is_some() {
        prune_images(transaction, id).await?;
    }
    Ok(())
}

impl Increments {
    /// Returns the schedule from the columns of a job; `None` for a job that delivers once.
    pub(super) fn from_columns(
        frequency_hours: Option<i32>,
        images_to_keep: Option<i32>,
    ) -> Option<Self> {
        Some(Self {
            frequency_hours: frequency_hours?,
            images_to_keep: images_to_keep?,
        })
    }
}
