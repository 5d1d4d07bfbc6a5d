//! Bytes in the stores: what counts, for whom, and when it is too much.

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::{ImageId, InstanceId};
use store::bytes::{BytesHeld, OverQuota};
use store::job::start::StartJob;
use store::lease::Lease;
use store::run::{Observation, Wanted};
use store::tenant::Quotas;

use crate::Bench;

impl Bench {
    async fn may_store(&self, max_bytes: Option<u64>) {
        let quotas = Quotas {
            max_bytes,
            ..Quotas::default()
        };
        assert!(self.store.set_quotas(&self.tenant, &quotas).await.unwrap());
    }

    async fn stored(&self, lease: &Lease, bytes: u64) -> Wanted {
        let observation = Observation {
            bytes_stored: Some(bytes),
            ..Observation::default()
        };
        let observed = self.store.observe(&self.job, lease.epoch, &observation);
        observed.await.unwrap().expect("the lease is live")
    }

    async fn held(&self) -> u64 {
        self.store.bytes_held(&self.tenant).await.unwrap()
    }
}

#[tokio::test]
async fn a_copy_counts_until_it_is_gone_and_an_image_until_it_is_deleted() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    let instance = bench.instance(&lease);
    let id: InstanceId = bench
        .store
        .take_instance(&instance)
        .await
        .unwrap()
        .unwrap()
        .id;
    assert_eq!(
        bench.stored(&lease, 300).await.bytes,
        None,
        "nothing is bounded"
    );
    assert_eq!(bench.held().await, 300);
    bench.may_store(Some(1000)).await;
    let held = bench.stored(&lease, 700).await.bytes.unwrap();
    assert_eq!(held.max, 1000);
    assert_eq!(bench.held().await, 700);

    let image = ImageId::generate();
    let begun = bench
        .store
        .begin_image(&bench.job, lease.epoch, &image)
        .await
        .unwrap();
    let image = begun.expect("the lease is live").id;
    bench.advance(&lease, State::Processing).await;
    let description = serde_json::json!({});
    let finished = bench
        .store
        .finish_image(&image, lease.epoch, "there", &description, 900);
    assert!(finished.await.unwrap());
    // The image's disks are second names of the copy's.
    assert_eq!(bench.held().await, 900);
    bench.store.remove_instance(&id, lease.epoch).await.unwrap();
    assert_eq!(bench.held().await, 900);
    let other = bench
        .store
        .bytes_held(&domain::TenantId::generate())
        .await
        .unwrap();
    assert_eq!(other, 0);
    bench
        .write("delete from image where job_id = $1", &[bench.job.as_str()])
        .await;
    assert_eq!(bench.held().await, 0);
}

#[tokio::test]
async fn a_job_that_would_store_too_much_does_not_start() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench
        .store
        .take_instance(&bench.instance(&lease))
        .await
        .unwrap()
        .unwrap();
    bench.stored(&lease, 40).await;
    bench.report(&lease, Event::Fail).await;
    bench
        .store
        .release_lease(&bench.job, lease.epoch)
        .await
        .unwrap();
    let disk = "insert into source_disk (source_id, index, path, size_bytes, used_bytes) values ($1, 0, '/dev/vda', 1000, 100)";
    bench.write(disk, &[bench.source.as_str()]).await;
    let of_job = "insert into job_disk (job_id, index, size_gib) values ($1, 0, 1)";
    bench.write(of_job, &[bench.job.as_str()]).await;

    // 40 lie there, and 100 are needed twice.
    bench.may_store(Some(199)).await;
    let over = OverQuota {
        bytes: BytesHeld { held: 40, max: 199 },
        needed: 160,
    };
    let headers = TraceHeaders::new();
    let start = async || {
        bench
            .store
            .start_job(&bench.tenant, &bench.job, &headers)
            .await
            .unwrap()
    };
    assert_eq!(start().await, StartJob::OverQuota(over));
    assert_eq!(
        bench.read("state").await,
        State::InError.as_str(),
        "a refusal changes nothing"
    );
    assert_eq!(
        bench.store.over_quota(&bench.job).await.unwrap(),
        Some(over)
    );
    bench.may_store(Some(200)).await;
    assert_eq!(bench.store.over_quota(&bench.job).await.unwrap(), None);
    assert_eq!(start().await, StartJob::Started);
}
