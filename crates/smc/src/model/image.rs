//! Images, Wherry's own operations: SMC hands images to another product, and here there is none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::{Done, File, Id, operations, paged};

operations! {
    DescribeImages -> DescribeImagesAnswer,
    DeleteImage -> Done,
    DownloadImage -> File,
}

paged!(DescribeImages: images of Image);

/// Lists images, newest first. Filters are ANDed. Not part of SMC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeImages {
    /// Ids of images.
    #[schema(max_items = 100, value_type = Option<Vec<Id>>)]
    pub image_id: Option<Vec<String>>,
    /// Ids of the jobs that delivered them.
    #[schema(max_items = 50, value_type = Option<Vec<Id>>)]
    pub job_id: Option<Vec<String>>,
    /// The exact name.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The page, from 1; default 1.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64)]
    pub page_number: Option<u32>,
    /// Rows on a page; default 10.
    #[schema(minimum = 1, maximum = 50)]
    pub page_size: Option<u32>,
}

/// Images on a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeImagesAnswer {
    /// The page.
    pub page_number: u32,
    /// Rows on a page at most.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: i64,
    /// The images of this page.
    pub images: Images,
}

lists! {
    /// A list of images.
    Images { "Image": Image }
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    /// The image.
    pub image_id: String,
    /// Its name.
    pub name: String,
    /// Creating, Available or Deleting.
    pub state: String,
    /// The job that delivered it.
    pub job_id: String,
    /// The source that it is of.
    pub source_id: String,
    /// Its region.
    pub region_id: String,
    /// Its location, as the image store names it.
    pub location: Option<String>,
    /// JSON text: its disks with sizes, root hashes and files, as in its own manifest.
    pub description: String,
    /// Time at which its creation began.
    pub creation_time: String,
}

/// Deletes an image. It is Deleting until its files are gone. Not part of SMC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteImage {
    /// The image.
    #[schema(max_length = 128)]
    pub image_id: String,
}

/// Answers with the bytes of one file of an image, or with the part that a Range header asks for. Not part of SMC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DownloadImage {
    /// The image.
    #[schema(max_length = 128)]
    pub image_id: String,
    /// One of the files that the image's Description names.
    #[schema(max_length = 255)]
    pub file: String,
}
