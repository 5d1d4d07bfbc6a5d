//! Images, Wherry's own operations: SMC hands images to another product, which does not exist here.

use domain::ImageId;
use smc::model::{self, DeleteImage, DescribeImages, DescribeImagesAnswer, Done, DownloadImage};
use store::image::{DeleteImage as Deletion, Image, ImageFilter, ImageState};

use super::id;
use crate::answer::Answer;
use crate::download::{self, FileAnswer};
use crate::operation::{Call, Effect, Handle, Operation, Resource, Terms, page};
use crate::{Refusal, trace};

impl Handle for DescribeImages {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: &[Resource::any("image").where_it_lies()],
        refusals: &[],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<DescribeImagesAnswer, Refusal> {
        let page = page(self.page_number, self.page_size);
        let filter = ImageFilter {
            ids: self.image_id,
            job_ids: self.job_id,
            name: self.name,
        };
        let store = &call.gateway.store;
        let listed = store.images(&call.tenant, &filter, page).await?;
        Ok(DescribeImagesAnswer {
            page_number: page.number,
            page_size: page.size,
            total_count: listed.total,
            images: listed.rows.into_iter().map(show).collect(),
        })
    }
}

fn show(image: Image) -> model::Image {
    // The path of the store on its host is known to the operator only.
    let location = image.location.rsplit('/').next();
    model::Image {
        image_id: image.id.to_string(),
        state: wire_state(image.state).to_owned(),
        job_id: image.job_id.to_string(),
        source_id: image.source_id.to_string(),
        location: location.map(str::to_owned),
        description: image.description.to_string(),
        creation_time: image.created_at.to_string(),
        name: image.name,
        region_id: image.region_id,
    }
}

fn wire_state(state: ImageState) -> &'static str {
    match state {
        ImageState::Creating => "Creating",
        ImageState::Available => "Available",
        ImageState::Deleting => "Deleting",
    }
}

impl Handle for DeleteImage {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[Resource::one("image", "ImageId").where_it_lies()],
        refusals: &["InvalidImageId.NotFound", "Image.InvalidStatus"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<ImageId>(&self.image_id, "ImageId")?;
        let store = &call.gateway.store;
        let deleted = store
            .delete_image(&call.tenant, &id, &trace::headers())
            .await?;
        match deleted {
            Deletion::Deleting => Ok(Done {}),
            Deletion::Refused(state) => Err(not_available(state)),
            Deletion::NotFound => Err(Refusal::not_found("ImageId")),
        }
    }
}

/// Makes DownloadImage, whose answer is a file.
pub(super) fn download() -> Operation {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: &[Resource::one("image", "ImageId").where_it_lies()],
        refusals: &[
            "InvalidImageId.NotFound",
            "InvalidFile.NotFound",
            "InvalidRange",
            "Image.InvalidStatus",
            "UnsupportedOperation",
        ],
        not_offered: &[],
    };
    Operation::new::<DownloadImage>(TERMS, |call, arguments| {
        Box::pin(async move { open(arguments.into_request(), call).await.map(Answer::File) })
    })
}

async fn open(asked: DownloadImage, call: Call) -> Result<FileAnswer, Refusal> {
    let id = id::<ImageId>(&asked.image_id, "ImageId")?;
    let filter = ImageFilter {
        ids: Some(vec![id.to_string()]),
        ..ImageFilter::default()
    };
    let first = store::Page { number: 1, size: 1 };
    let store = &call.gateway.store;
    let listed = store.images(&call.tenant, &filter, first).await?;
    match listed.rows.first() {
        None => return Err(Refusal::not_found("ImageId")),
        Some(image) if image.state != ImageState::Available => {
            return Err(not_available(image.state));
        }
        Some(_) => {}
    }
    let Some(image_store) = &call.gateway.image_store else {
        return Err(Refusal::new(
            "UnsupportedOperation",
            "The specified action is not supported. This gateway does not see the image store: its operator can set --image-store.",
        ));
    };
    if !domain::name::is_image_file(&asked.file) {
        return Err(Refusal::not_found("File"));
    }
    let path = image_store.join(id.as_str()).join(&asked.file);
    let range = call.headers.get("range");
    let range = range.and_then(|range| range.to_str().ok());
    let file = download::open(&path, range).await?;
    file.ok_or_else(|| Refusal::not_found("File"))
}

fn not_available(state: ImageState) -> Refusal {
    Refusal::new(
        "Image.InvalidStatus",
        format!(
            "The specified image status: {} is invalid. This operation can only be performed in the following status: Available.",
            wire_state(state)
        ),
    )
}
