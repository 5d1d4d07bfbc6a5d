//! DescribeImages, DeleteImage, DownloadImage.

use domain::{ImageId, JobId};
use smc::CallError;
use smc::model::DownloadImage;

use crate::fixture::{Fixture, Tenant};

async fn image(fixture: &Fixture, tenant: &Tenant, name: &str, state: &str) -> ImageId {
    let id = ImageId::generate();
    sqlx::query(
        "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state, location, description)
         values ($1, $2, $3, 's-1', 1, 1, 'local', $4, $5, '/srv/images/here', '{\"disks\":[]}')",
    )
    .bind(id.as_str())
    .bind(tenant.id.as_str())
    .bind(JobId::generate().as_str())
    .bind(name)
    .bind(state)
    .execute(&fixture.pool)
    .await
    .expect("an image");
    id
}

#[tokio::test]
async fn images_are_listed_and_deleted_by_whoever_has_the_store() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let web = image(&fixture, &tenant, "web", "available").await;
    let growing = image(&fixture, &tenant, "growing", "creating").await;
    let answer = tenant.call("DescribeImages", &[("Name", "web")]).await;
    let shown = &answer["Images"]["Image"][0];
    assert_eq!(
        (&shown["ImageId"], &shown["State"]),
        (&web.as_str().into(), &"Available".into())
    );
    assert_eq!(
        (&shown["Description"], &shown["Location"]),
        (&"{\"disks\":[]}".into(), &"here".into())
    );
    assert_eq!(tenant.call("DescribeImages", &[]).await["TotalCount"], 2);
    let by_job = [("JobId.1", shown["JobId"].as_str().expect("an id"))];
    assert_eq!(
        tenant.call("DescribeImages", &by_job).await["TotalCount"],
        1
    );

    tenant
        .call("DeleteImage", &[("ImageId", web.as_str())])
        .await;
    let answer = tenant
        .call("DescribeImages", &[("ImageId.1", web.as_str())])
        .await;
    assert_eq!(answer["Images"]["Image"][0]["State"], "Deleting");
    for id in [&web, &growing] {
        assert_eq!(
            tenant
                .code("DeleteImage", &[("ImageId", id.as_str())])
                .await,
            "Image.InvalidStatus"
        );
    }
    assert_eq!(
        tenant.code("DeleteImage", &[("ImageId", "m-none")]).await,
        "InvalidImageId.NotFound"
    );
    fixture.stop().await;
}

async fn bytes(
    tenant: &Tenant,
    image: &ImageId,
    file: &str,
    offset: u64,
) -> Result<(Option<u64>, Vec<u8>), CallError> {
    let request = DownloadImage {
        image_id: image.to_string(),
        file: file.to_owned(),
    };
    let mut download = tenant.client.download(&request, offset).await?;
    let length = download.length_bytes();
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok((length, bytes))
}

#[tokio::test]
async fn a_gateway_that_does_not_see_the_image_store_says_so() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let image = image(&fixture, &tenant, "web", "available").await;
    let blind = fixture.second_without("--image-store").await;
    let file = [("ImageId", image.as_str()), ("File", "disk-0.raw")];
    let refused = blind
        .client(&tenant)
        .call_by_name("DownloadImage", &file)
        .await;
    let Err(CallError::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.code, "UnsupportedOperation");
    assert!(refusal.message.contains("--image-store"), "{refusal:?}");
    blind.stop().await;
}

#[tokio::test]
async fn a_file_is_downloaded_whole_or_from_an_offset() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let image = image(&fixture, &tenant, "web", "available").await;
    let directory = fixture.image_store.path().join(image.as_str());
    std::fs::create_dir(&directory).expect("a directory");
    let content: Vec<u8> = (0..1_000_000_u32)
        .map(|number| u8::try_from(number % 251).expect("small"))
        .collect();
    std::fs::write(directory.join("disk-0.raw"), &content).expect("a file");
    std::fs::write(fixture.image_store.path().join("secret"), "x").expect("a file");

    assert_eq!(
        bytes(&tenant, &image, "disk-0.raw", 0)
            .await
            .expect("a file"),
        (Some(1_000_000), content.clone())
    );
    let (length, rest) = bytes(&tenant, &image, "disk-0.raw", 999_000)
        .await
        .expect("a part");
    assert_eq!((length, &rest[..]), (Some(1000), &content[999_000..]));
    let refused = bytes(&tenant, &image, "disk-0.raw", 1_000_000)
        .await
        .expect_err("no such part");
    assert_eq!(
        (
            refused.code(),
            refused.refusal().map(|refusal| refusal.http_status)
        ),
        (Some("InvalidRange"), Some(416))
    );
    for file in ["disk-1.raw", "../secret", "..", "/etc/passwd", "."] {
        let refused = bytes(&tenant, &image, file, 0)
            .await
            .expect_err("no such file");
        assert_eq!(refused.code(), Some("InvalidFile.NotFound"), "{file}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn only_a_whole_image_of_this_account_is_downloaded() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let neighbour = fixture.tenant("two").await;
    let theirs = image(&fixture, &neighbour, "web", "available").await;
    let growing = image(&fixture, &tenant, "web", "creating").await;
    let refused = bytes(&tenant, &theirs, "disk-0.raw", 0)
        .await
        .expect_err("another account's");
    assert_eq!(refused.code(), Some("InvalidImageId.NotFound"));
    let refused = bytes(&tenant, &growing, "disk-0.raw", 0)
        .await
        .expect_err("not whole");
    assert_eq!(refused.code(), Some("Image.InvalidStatus"));
    fixture.stop().await;
}
