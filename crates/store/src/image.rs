//! Images, as the API shows and deletes them. The process that has the image store removes their files.

use domain::message::{Command, Message, TraceHeaders};
use domain::{ImageId, JobId, SourceId, TenantId, Timestamp};
use serde_json::Value;

use crate::list::Matching;
use crate::row::parse;
use crate::{Listed, Page, Store, StoreError, outbox};

/// The state of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    /// The image is being built and stored.
    Creating,
    /// The image is complete.
    Available,
    /// The image's files are being removed.
    Deleting,
}

impl ImageState {
    const ALL: [Self; 3] = [Self::Creating, Self::Available, Self::Deleting];

    /// Returns the name in the database.
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
    /// Id of the image.
    pub id: ImageId,
    /// The job that delivered the image.
    pub job_id: JobId,
    /// The source that the image was copied from.
    pub source_id: SourceId,
    /// Region of the image.
    pub region_id: String,
    /// Name of the image.
    pub name: String,
    /// State of the image.
    pub state: ImageState,
    /// Location of the image, as the image store names it.
    pub location: String,
    /// Disks with sizes, root hashes and files, as in the image's own manifest.
    pub description: Value,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// A filter for the list of images; absent parts match all.
#[derive(Debug, Clone, Default)]
pub struct ImageFilter {
    /// Ids of the images.
    pub ids: Option<Vec<String>>,
    /// Jobs that delivered the images.
    pub job_ids: Option<Vec<String>>,
    /// Name of the image.
    pub name: Option<String>,
}

/// Outcome of a request to delete an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteImage {
    /// The image's files are being removed; its row is deleted afterwards.
    Deleting,
    /// The image is being created, or is being deleted already.
    Refused(ImageState),
    /// The image does not exist, or belongs to another tenant.
    NotFound,
}

impl Store {
    /// Returns the tenant's images, newest first.
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

    /// Marks the image for deletion and appends the message that causes it.
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
