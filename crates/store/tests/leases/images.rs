//! The image of a run: one, handed from owner to owner, and removed if it is never delivered.

use std::time::Duration;

use domain::ImageId;
use domain::job::{Event, State};
use store::job::Guard;
use store::lease::{Claim, Lease};

use super::{Bench, TTL};

#[tokio::test]
async fn a_run_has_one_image_and_the_next_owner_goes_on_with_it() {
    let bench = Bench::new().await;
    let first = bench.lease("w").await;
    let (store, job) = (&bench.store, &bench.job);
    let image = store
        .begin_image(job, first.epoch, &ImageId::generate())
        .await
        .unwrap()
        .unwrap()
        .id;
    assert!(!store.image_is_delivered(job, first.run).await.unwrap());
    let second = bench.another_owner().await;
    let again = store
        .begin_image(job, second.epoch, &ImageId::generate())
        .await
        .unwrap();
    assert_eq!(again.map(|begun| begun.id).as_ref(), Some(&image));
    let description = serde_json::json!({"disks": []});
    for _ in 0..2 {
        assert!(
            store
                .finish_image(&image, second.epoch, "/images/m", &description, 0)
                .await
                .unwrap()
        );
    }
    assert!(store.image_is_delivered(job, second.run).await.unwrap());
    assert_eq!(bench.read("image_id").await, image.as_str());
    assert!(!store.image_is_to_go(&image).await.unwrap());
    store.remove_image(&image).await.unwrap();
    assert!(
        store.image_is_delivered(job, second.run).await.unwrap(),
        "only a deleted image goes"
    );
}

impl Bench {
    async fn begin_image(&self, lease: &Lease) -> ImageId {
        let begun = self
            .store
            .begin_image(&self.job, lease.epoch, &ImageId::generate())
            .await;
        begun.unwrap().expect("the epoch is not over").id
    }

    /// Returns the number of requests to remove the image.
    async fn removals_asked(&self, image: &ImageId) -> i64 {
        sqlx::query_scalar(
            "select count(*) from outbox where message::text like '%remove_image%' and message::text like '%' || $1 || '%'",
        )
        .bind(image.as_str())
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn what_a_failed_or_halted_run_began_goes_and_the_next_run_makes_its_own() {
    let bench = Bench::new().await;
    for end in [Event::Fail, Event::Halted] {
        let lease = bench.lease("w").await;
        bench.advance(&lease, State::Processing).await;
        let image = bench.begin_image(&lease).await;
        bench.report(&lease, end).await;
        assert!(bench.store.image_is_to_go(&image).await.unwrap(), "{end}");
        assert_eq!(bench.removals_asked(&image).await, 1, "{end}");
        let description = serde_json::json!({"disks": []});
        let late = bench
            .store
            .finish_image(&image, lease.epoch, "/images/m", &description, 0);
        assert!(
            !late.await.unwrap(),
            "an image that goes is delivered to nobody"
        );
        assert_eq!(bench.read("image_id").await, "");
        bench.store.remove_image(&image).await.unwrap();
        bench
            .store
            .release_lease(&bench.job, lease.epoch)
            .await
            .unwrap();
        bench.start().await;
    }
}

#[tokio::test]
async fn what_nobody_delivers_any_more_is_found_by_the_reconciler() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Processing).await;
    let live = bench.begin_image(&lease).await;
    let age = Duration::from_secs(3600);
    assert_eq!(bench.store.reconcile(age).await.unwrap().images, 0);
    assert!(
        !bench.store.image_is_to_go(&live).await.unwrap(),
        "its run goes on"
    );
    bench.report(&lease, Event::Fail).await;
    bench.store.remove_image(&live).await.unwrap();
    // A worker that has not learnt of the removal.
    let late = bench.begin_image(&lease).await;
    assert_eq!(bench.store.reconcile(age).await.unwrap().images, 1);
    assert!(bench.store.image_is_to_go(&late).await.unwrap());
    assert_eq!(bench.removals_asked(&late).await, 1);
    assert_eq!(
        bench.store.reconcile(age).await.unwrap().images,
        0,
        "asked for once in that time"
    );
}

#[tokio::test]
async fn an_image_that_was_never_delivered_keeps_no_tenant_from_going() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.report(&lease, Event::Halted).await;
    let late = bench.begin_image(&lease).await;
    bench
        .store
        .release_lease(&bench.job, lease.epoch)
        .await
        .unwrap();
    bench
        .send(Event::Delete, Guard::Tenant(&bench.tenant))
        .await;
    let claimed = bench.store.claim_removal(&bench.job, "w", TTL).await;
    let Claim::Granted(removal) = claimed.unwrap() else {
        panic!("nobody else removes it")
    };
    let removed = bench.store.remove_job(&bench.job, removal.epoch, "w").await;
    assert!(removed.unwrap());
    assert_eq!(bench.removals_asked(&late).await, 1);
    bench.store.remove_image(&late).await.unwrap();
    bench
        .write("delete from source where id = $1", &[bench.source.as_str()])
        .await;
    let gone = bench.store.remove_tenant(&bench.tenant).await.unwrap();
    assert_eq!(gone, store::operator::RemoveTenant::Removed);
}
