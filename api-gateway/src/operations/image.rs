//! Images, Wherry's own operations: SMC hands images to another product, and here there is none.

use domain::ImageId;
use serde_json::{Value, json};
use store::image::{DeleteImage, Image, ImageFilter, ImageState};

use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{
    BYTES, Call, Effect, Operation, PAGE_NUMBER, PAGE_SIZE, Resource, field, page,
};
use crate::{Refusal, download, trace};

pub(super) const DESCRIBE: Operation = Operation {
    name: "DescribeImages",
    summary: "Lists images, newest first. Filters are ANDed. Not part of SMC.",
    parameters: &[
        Parameter::list("ImageId.N", 100, Rule::Text(128), "Ids of images."),
        Parameter::list(
            "JobId.N",
            50,
            Rule::Text(128),
            "Ids of the jobs that delivered them.",
        ),
        Parameter::optional("Name", Rule::Text(256), "The exact name."),
        PAGE_NUMBER,
        PAGE_SIZE,
    ],
    answer: &[
        field("PageNumber", "integer", "The page."),
        field("PageSize", "integer", "Rows on a page at most."),
        field("TotalCount", "integer", "Rows on all pages."),
        field("Images.Image[].ImageId", "string", "The image."),
        field("Images.Image[].Name", "string", "Its name."),
        field(
            "Images.Image[].State",
            "string",
            "Creating, Available or Deleting.",
        ),
        field(
            "Images.Image[].JobId",
            "string",
            "The job that delivered it.",
        ),
        field(
            "Images.Image[].SourceId",
            "string",
            "The source that it is of.",
        ),
        field("Images.Image[].RegionId", "string", "Its region."),
        field(
            "Images.Image[].Location",
            "string",
            "Where it lies, as the image store names it.",
        ),
        field(
            "Images.Image[].Description",
            "string",
            "JSON text: its disks with sizes, root hashes and files, as in its own manifest.",
        ),
        field(
            "Images.Image[].CreationTime",
            "string",
            "When it was begun.",
        ),
    ],
    refusals: &[],
    effect: Effect::Reads,
    resources: &[Resource::any("image").where_it_lies()],
    handler: |call, arguments| Box::pin(describe(call, arguments)),
};

async fn describe(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let page = page(&arguments);
    let filter = ImageFilter {
        ids: arguments.texts("ImageId.N"),
        job_ids: arguments.texts("JobId.N"),
        name: arguments.text("Name").map(str::to_owned),
    };
    let listed = call
        .gateway
        .store
        .images(&call.tenant, &filter, page)
        .await?;
    Ok(Answer::fields(json!({
        "PageNumber": page.number,
        "PageSize": page.size,
        "TotalCount": listed.total,
        "Images": list("Image", listed.rows.iter().map(show)),
    })))
}

fn show(image: &Image) -> Value {
    json!({
        "ImageId": image.id,
        "Name": image.name,
        "State": wire_state(image.state),
        "JobId": image.job_id,
        "SourceId": image.source_id,
        "RegionId": image.region_id,
        // Where the store is on its host is the operator's.
        "Location": image.location.rsplit('/').next(),
        "Description": image.description.to_string(),
        "CreationTime": image.created_at,
    })
}

fn wire_state(state: ImageState) -> &'static str {
    match state {
        ImageState::Creating => "Creating",
        ImageState::Available => "Available",
        ImageState::Deleting => "Deleting",
    }
}

pub(super) const DELETE: Operation = Operation {
    name: "DeleteImage",
    summary: "Deletes an image. It is Deleting until its files are gone. Not part of SMC.",
    parameters: &[Parameter::required(
        "ImageId",
        Rule::Text(128),
        "The image.",
    )],
    answer: &[],
    refusals: &["InvalidImageId.NotFound", "Image.InvalidStatus"],
    effect: Effect::Writes,
    resources: &[Resource::one("image", "ImageId").where_it_lies()],
    handler: |call, arguments| Box::pin(delete(call, arguments)),
};

async fn delete(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = image_id(&arguments)?;
    match call
        .gateway
        .store
        .delete_image(&call.tenant, &id, &trace::headers())
        .await?
    {
        DeleteImage::Deleting => Ok(Answer::done()),
        DeleteImage::Refused(state) => Err(not_available(state)),
        DeleteImage::NotFound => Err(Refusal::not_found("ImageId")),
    }
}

pub(super) const DOWNLOAD: Operation = Operation {
    name: "DownloadImage",
    summary: "Answers with the bytes of one file of an image, or with the part that a Range header asks for. Not part of SMC.",
    parameters: &[
        Parameter::required("ImageId", Rule::Text(128), "The image."),
        Parameter::required(
            "File",
            Rule::Text(255),
            "One of the files that the image's Description names.",
        ),
    ],
    answer: &[field("", BYTES, "The file, or the part of it.")],
    refusals: &[
        "InvalidImageId.NotFound",
        "InvalidFile.NotFound",
        "InvalidRange",
        "Image.InvalidStatus",
        "UnsupportedOperation",
    ],
    effect: Effect::Reads,
    resources: &[Resource::one("image", "ImageId").where_it_lies()],
    handler: |call, arguments| Box::pin(answer_file(call, arguments)),
};

async fn answer_file(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = image_id(&arguments)?;
    let file = arguments.required_text("File");
    let filter = ImageFilter {
        ids: Some(vec![id.to_string()]),
        ..ImageFilter::default()
    };
    let first = store::Page { number: 1, size: 1 };
    let listed = call
        .gateway
        .store
        .images(&call.tenant, &filter, first)
        .await?;
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
    if !domain::name::is_image_file(file) {
        return Err(Refusal::not_found("File"));
    }
    let path = image_store.join(id.as_str()).join(file);
    let range = call
        .headers
        .get("range")
        .and_then(|range| range.to_str().ok());
    match download::open(&path, range).await? {
        Some(file) => Ok(Answer::File(file)),
        None => Err(Refusal::not_found("File")),
    }
}

fn image_id(arguments: &Arguments) -> Result<ImageId, Refusal> {
    arguments
        .required_text("ImageId")
        .parse()
        .map_err(|_| Refusal::not_found("ImageId"))
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
