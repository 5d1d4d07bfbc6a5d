//! Images, as the API shows and deletes them. Their files are removed by whoever has the image store.

use domain::message::{Command, Message, TraceHeaders};
use domain::{ImageId, JobId, SourceId, TenantId, Timestamp};
use serde_json::Value;

use crate::list::Matching;
use crate::row::parse;
use crate::{Listed, Page, Store, StoreError, outbox};

/// The state of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    /// It is being built and stored.
    Creating,
    /// It is whole.
    Available,
    /// Its files are being removed.
    Deleting,
}

impl ImageState {
    const ALL: [Self; 3] = [Self::Creating, Self::Available, Self::Deleting];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Deleting => "deleting",
        }
    }
}

/// The text names no state of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of an image")]
pub struct UnknownImageState(String);

impl std::str::FromStr for ImageState {
    type Err = UnknownImageState;

    fn from_str(text: &str) -> Result<Self, UnknownImageState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownImageState(text.to_owned()))
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// The job that delivered it.
    pub job_id: JobId,
    /// The source that it is of.
    pub source_id: SourceId,
    /// Its region.
    pub region_id: String,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ImageState,
    /// Where it lies, as the image store names it.
    pub location: String,
    /// Disks with sizes, root hashes and files, as in the image's own manifest.
    pub description: Value,
    /// When it was begun.
    pub created_at: Timestamp,
}

/// Which images to list; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct ImageFilter {
    /// One of these.
    pub ids: Option<Vec<String>>,
    /// Delivered by one of these jobs.
    pub job_ids: Option<Vec<String>>,
    /// Of this name.
    pub name: Option<String>,
}

/// What became of the wish to delete an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteImage {
    /// Its files are being removed; then its row goes.
    Deleting,
    /// It is being made, or deleted already.
    Refused(ImageState),
    /// There is none, or it is another tenant's.
    NotFound,
}

impl Store {
    /// The tenant's images, newest first.
    pub async fn images(
        &self,
        tenant: &TenantId,
        filter: &ImageFilter,
        page: Page,
    ) -> Result<Listed<Image>, StoreError> {
        let start = self.page_ends.start(tenant, "image", filter, page);
        let mut connection = self.connection_as(tenant).await?;
        let Listed { rows: ids, total } = Matching::of(tenant, "image", &[])
            .and_one_of("id", filter.ids.as_deref())
            .and_one_of("job_id", filter.job_ids.as_deref())
            .and("name = ?", filter.name.as_deref())
            .page(start, &mut connection)
            .await?;
        let rows = sqlx::query!(
            "select id, job_id, source_id, region_id, name, state, location, description, created_at
            from image where id = any($1) order by created_at desc, id desc",
            &ids,
        )
        .fetch_all(&mut *connection)
        .await?;
        let rows = rows
            .into_iter()
            .map(|row| {
                Ok(Image {
                    id: parse("image.id", &row.id)?,
                    job_id: parse("image.job_id", &row.job_id)?,
                    source_id: parse("image.source_id", &row.source_id)?,
                    region_id: row.region_id,
                    name: row.name,
                    state: parse("image.state", &row.state)?,
                    location: row.location,
                    description: row.description,
                    created_at: row.created_at.into(),
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Listed { rows, total })
    }

    /// Asks for the image to be deleted, with the message that brings it about.
    pub async fn delete_image(
        &self,
        tenant: &TenantId,
        id: &ImageId,
        headers: &TraceHeaders,
    ) -> Result<DeleteImage, StoreError> {
        let mut transaction = self.begin_as(tenant).await?;
        let Some(state) = sqlx::query_scalar!(
            "select state from image where tenant = $1 and id = $2 for update",
            tenant.as_str(),
            id.as_str()
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(DeleteImage::NotFound);
        };
        let state: ImageState = parse("image.state", &state)?;
        if state != ImageState::Available {
            return Ok(DeleteImage::Refused(state));
        }
        sqlx::query!(
            "update image set state = 'deleting' where id = $1",
            id.as_str()
        )
        .execute(&mut *transaction)
        .await?;
        let command = Command::RemoveImage {
            image_id: id.clone(),
        };
        outbox::append(&mut transaction, &Message::Command(command), headers).await?;
        transaction.commit().await?;
        Ok(DeleteImage::Deleting)
    }
}
