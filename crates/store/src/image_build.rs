//! Images from the worker's side: one for each run. Its row exists before its first byte and until after its last.

use domain::message::{Command, Message, TraceHeaders};
use domain::{Epoch, ImageId, JobId, Run};

use crate::job::increments;
use crate::row::{parse, signed};
use crate::{Store, StoreError, Transaction, outbox};

/// An image that is being created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunImage {
    /// Id of the image.
    pub id: ImageId,
    /// Name of the image.
    pub name: String,
}

impl Store {
    /// Returns the image of this run, with its name. It is `candidate`, or the image that an earlier owner of the run
    /// began. `None` if the epoch is over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin_image(
        &self,
        job_id: &JobId,
        epoch: Epoch,
        candidate: &ImageId,
    ) -> Result<Option<BegunImage>, StoreError> {
        let row = sqlx::query!(
            r#"
            with named as (
                -- Each image of a job that delivers again and again says of which run it is.
                select job.*, image_name || case when frequency_hours is null then '' else '_CYCLE_' || run end as wanted
                from job where id = $1 and epoch = $2
            )
            insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name)
            select $3, tenant, id, source_id, run, epoch, region_id,
                -- A name that another image has gets the job's id appended (SMC API §1.4).
                case when exists (select 1 from image as other where other.tenant = named.tenant
                        and other.region_id = named.region_id and other.name = named.wanted and other.job_id <> named.id)
                    then named.wanted || '_' || named.id else named.wanted end
            from named
            on conflict (job_id, run) do update set epoch = excluded.epoch where image.epoch <= excluded.epoch
            returning id, name
            "#,
            job_id.as_str(),
            epoch.0,
            candidate.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(BegunImage {
                id: parse("image.id", &row.id)?,
                name: row.name,
            })
        })
        .transpose()
    }

    /// Records that the image is in the store, and assigns it to the job. Images that the job no longer keeps are
    /// marked for removal. `false` if the epoch is over, or if the run has ended and its image is being removed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn finish_image(
        &self,
        image_id: &ImageId,
        epoch: Epoch,
        location: &str,
        description: &serde_json::Value,
        bytes_stored: u64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let given = sqlx::query_scalar!(
            "update job set image_id = image.id from image
             where image.id = $1 and image.state <> 'deleting' and job.id = image.job_id and job.epoch = $2
             returning job.id",
            image_id.as_str(),
            epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(job_id) = given else {
            return Ok(false);
        };
        sqlx::query!(
            "update image set state = 'available', location = $2, description = $3, bytes_stored = $4
             where id = $1 and state = 'creating'",
            image_id.as_str(),
            location,
            description,
            signed(bytes_stored),
        )
        .execute(&mut *transaction)
        .await?;
        // The image's disks are the copy's: from now on the image counts.
        sqlx::query!(
            "update instance set bytes_stored = 0 where job_id = $1",
            job_id
        )
        .execute(&mut *transaction)
        .await?;
        increments::prune_images(&mut transaction, &parse("job.id", &job_id)?).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Returns true if the run's image is in the store and recorded as such. Its files are not written any more then.
    ///
    /// # Errors
    /// The database fails.
    pub async fn image_is_delivered(&self, job_id: &JobId, run: Run) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"select true as "found!" from image where job_id = $1 and run = $2 and state <> 'creating'"#,
            job_id.as_str(),
            run.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    /// Returns true if the image is to be removed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn image_is_to_go(&self, image_id: &ImageId) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"select true as "found!" from image where id = $1 and state = 'deleting'"#,
            image_id.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    /// Removes the row of an image whose files are gone.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_image(&self, image_id: &ImageId) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from image where id = $1 and state = 'deleting'",
            image_id.as_str()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Asks for the removal of images that the job's runs began and did not deliver. No run continues them, since the next
/// run makes an image of its own.
pub(crate) async fn abandon_images(
    transaction: &mut Transaction<'_>,
    job_id: &JobId,
    headers: &TraceHeaders,
) -> Result<(), StoreError> {
    let abandoned = sqlx::query_scalar!(
        "update image set state = 'deleting' where job_id = $1 and state = 'creating' returning id",
        job_id.as_str()
    )
    .fetch_all(&mut **transaction)
    .await?;
    for id in abandoned {
        let command = Command::RemoveImage {
            image_id: parse("image.id", &id)?,
        };
        outbox::append(transaction, &Message::Command(command), headers).await?;
    }
    Ok(())
}
