//! Barriers that keep an agent from commanding its receiver, and a run from another's image. The first barrier, a
//! socket that agents can't reach, is the provider's; each of these suffices without it.

use std::path::Path;

use proto::receiver as wire;
use proto::receiver::image_status::State;
use proto::receiver::receiver_service_client::ReceiverServiceClient;
use testkit::wait;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{Bench, MIB, PATIENCE, SOURCE, described};

/// Returns the code of each call's answer.
async fn codes(channel: Channel, epoch: i64) -> [Code; 4] {
    let mut client = ReceiverServiceClient::new(channel);
    let code = |answer: Result<(), Status>| answer.err().map_or(Code::Ok, |status| status.code());
    [
        code(client.admit(wire::AdmitRequest { epoch }).await.map(drop)),
        code(client.status(wire::StatusRequest { epoch }).await.map(drop)),
        code(client.halt(wire::HaltRequest { epoch }).await.map(drop)),
        code(
            client
                .build_image(wire::BuildImageRequest { epoch })
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_the_workers_and_denied_to_the_agent() {
    let bench = Bench::new(MIB);
    let running = bench.run(1, "qemu-img").await;
    let agent = bench.authority.issue_client(SOURCE).unwrap();
    let denied = codes(bench.channel(Some(agent)), 1).await;
    assert_eq!(denied, [Code::PermissionDenied; 4]);
    // A server's certificate with the name gives no right either, though it comes from the same authority.
    let named = [wire::CONTROL_NAME.to_owned()];
    let server = bench.authority.issue_server(&named).unwrap();
    for stranger in [Some(server), None] {
        let refused = codes(bench.channel(stranger), 1).await;
        let is_heard = |code: &Code| matches!(code, Code::Ok | Code::PermissionDenied);
        assert!(
            !refused.iter().any(is_heard),
            "the handshake fails: {refused:?}"
        );
    }
    let worker = bench.authority.issue_client(wire::CONTROL_NAME).unwrap();
    let admitted = codes(bench.channel(Some(worker)), 1).await;
    assert_eq!(admitted[..3], [Code::Ok; 3]);
    running.stop().await;
}

/// The request of the time when calls still named their job, image and disks.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(int64, tag = "1")]
    epoch: i64,
    #[prost(string, tag = "2")]
    image_or_job_id: String,
    #[prost(string, tag = "3")]
    image_name: String,
    #[prost(string, tag = "4")]
    job_id: String,
    #[prost(string, tag = "5")]
    source_id: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_can_name_another_image_job_or_epoch_than_the_instance() {
    let bench = Bench::new(MIB);
    let mut running = bench.run(1, "qemu-img").await;
    let higher = wire::AdmitRequest { epoch: 1001 };
    let refused = running.client.admit(higher).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    bench.copy(&mut running, 1).await;

    let victim = bench.path("images/m-victim");
    make_image(&victim, "m-victim", "j-victim");
    let order = Named {
        epoch: 1,
        image_or_job_id: "m-victim".to_owned(),
        image_name: "forged".to_owned(),
        job_id: "j-victim".to_owned(),
        source_id: "s-forged".to_owned(),
    };
    let worker = bench.authority.issue_client(wire::CONTROL_NAME).unwrap();
    let mut client = tonic::client::Grpc::new(bench.channel(Some(worker)));
    client.ready().await.unwrap();
    let codec = ProstCodec::<Named, wire::BuildImageResponse>::default();
    let path = "/wherry.receiver.v1.ReceiverService/BuildImage";
    client
        .unary(Request::new(order), path.parse().unwrap(), codec)
        .await
        .unwrap();
    let status = wait::some(PATIENCE, "the image is made", async || {
        let status = running.status(1).await;
        let state = status.image.clone().unwrap_or_default().state();
        Ok((state == State::Stored).then_some(status))
    });
    let (location, image) = described(&status.await.unwrap());
    assert_eq!(location, bench.path("images").join(bench.image_id.as_str()));
    assert_eq!(
        (image.job_id, image.source_id, image.name),
        (
            bench.job_id.to_string(),
            SOURCE.to_owned(),
            "web".to_owned()
        )
    );
    assert_untouched(&victim);
    running.stop().await;
}

fn make_image(directory: &Path, image_id: &str, job_id: &str) {
    std::fs::create_dir(directory).unwrap();
    let description = serde_json::json!({"image_id": image_id, "name": "victim", "job_id": job_id,
        "source_id": "s-victim", "created": "2026-01-01T00:00:00Z", "disks": []});
    std::fs::write(directory.join("image.json"), description.to_string()).unwrap();
    std::fs::write(directory.join("disk-0.raw"), "precious").unwrap();
}

fn assert_untouched(directory: &Path) {
    let kept = std::fs::read(directory.join("disk-0.raw")).unwrap();
    assert_eq!(kept, b"precious", "{}", directory.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_job_has_in_the_store_is_never_cleared_nor_what_nobody_can_tell() {
    let mut bench = Bench::new(MIB);
    let mut epoch = 0;
    let own = |bench: &Bench| bench.path(&format!("images/{}", bench.image_id));
    let makes: [fn(&Bench, &Path); 4] = [
        |bench, at| make_image(at, bench.image_id.as_str(), "j-victim"),
        |bench, at| make_image(at, "m-victim", bench.job_id.as_str()),
        |_, at| {
            make_image(at, "m-victim", "j-victim");
            std::fs::remove_file(at.join("image.json")).unwrap();
        },
        |_, at| {
            make_image(at, "m-victim", "j-victim");
            std::fs::write(at.join("image.json"), "{\"image_id\":").unwrap();
        },
    ];
    for make in makes {
        epoch += 1;
        bench.image_id = domain::ImageId::generate();
        let directory = own(&bench);
        make(&bench, &directory);
        let mut running = bench.run(epoch, "qemu-img").await;
        bench.copy(&mut running, epoch).await;
        let failure = bench.build(&mut running, epoch).await.failure.unwrap();
        assert_eq!(failure.code, domain::FailureCode::ImageFailed.as_str());
        assert!(
            failure.message.contains("is in the way") && failure.message.contains("Move it"),
            "{}",
            failure.message
        );
        assert_untouched(&directory);
        running.stop().await;
    }
    // The same beside the image, where an attempt of this job would lie.
    epoch += 1;
    bench.image_id = domain::ImageId::generate();
    let partial = own(&bench).with_extension("partial");
    make_image(&partial, "m-victim", "j-victim");
    let mut running = bench.run(epoch, "qemu-img").await;
    bench.copy(&mut running, epoch).await;
    assert!(bench.build(&mut running, epoch).await.failure.is_some());
    assert_untouched(&partial);
    running.stop().await;
}
