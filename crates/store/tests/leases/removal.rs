//! Rows that are removed with a job, and rows without an owner.

use domain::InstanceId;
use domain::job::Event;
use store::job::Guard;
use store::lease::{Claim, Lease};

use super::{Bench, TTL};

#[tokio::test]
async fn a_deleted_job_goes_once_however_often_it_is_removed() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    let instance = bench
        .store
        .take_instance(&bench.instance(&lease))
        .await
        .unwrap()
        .unwrap();
    bench.halt(&lease).await;
    let early = bench
        .store
        .claim_removal(&bench.job, "w", TTL)
        .await
        .unwrap();
    assert_eq!(early, Claim::NotWanted, "nobody deleted it");
    bench
        .send(Event::Delete, Guard::Tenant(&bench.tenant))
        .await;
    bench
        .send(Event::Delete, Guard::Tenant(&bench.tenant))
        .await;

    let claims = futures::future::join_all(
        ["w-1", "w-2"].map(|worker| bench.store.claim_removal(&bench.job, worker, TTL)),
    )
    .await;
    let granted: Vec<Lease> = claims
        .into_iter()
        .filter_map(|claim| match claim.unwrap() {
            Claim::Granted(lease) => Some(lease),
            Claim::Held | Claim::NotWanted => None,
        })
        .collect();
    let [removal] = granted.as_slice() else {
        panic!("one cleans up: {granted:?}")
    };
    assert!(removal.epoch > lease.epoch);
    assert!(
        !bench
            .store
            .remove_job(&bench.job, lease.epoch, "w-old")
            .await
            .unwrap()
    );
    bench
        .store
        .remove_instance(&instance.id, removal.epoch)
        .await
        .unwrap();
    assert!(
        bench
            .store
            .remove_job(&bench.job, removal.epoch, "w-1")
            .await
            .unwrap()
    );
    assert!(
        !bench
            .store
            .remove_job(&bench.job, removal.epoch, "w-1")
            .await
            .unwrap()
    );
    assert!(bench.is_gone().await);
    assert_eq!(bench.claim("w-late").await, Claim::NotWanted);
    let removals: i64 =
        sqlx::query_scalar("select count(*) from job_event where event = 'removed'")
            .fetch_one(&bench.pool)
            .await
            .unwrap();
    assert_eq!(removals, 1, "its history says so once");
}

#[tokio::test]
async fn instances_that_nobody_owns_are_found_and_their_rows_forgotten_when_they_are_gone() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    let owned = bench
        .store
        .take_instance(&bench.instance(&lease))
        .await
        .unwrap()
        .unwrap()
        .id;
    let unknown = InstanceId::generate();
    let existing = [owned.clone(), unknown.clone()];
    let orphans = bench.store.orphaned_instances(&existing).await.unwrap();
    assert_eq!(orphans, [unknown]);
    assert_eq!(
        bench.store.forget_instances("here", &[]).await.unwrap(),
        0,
        "its job is there"
    );

    bench.write("delete from job_lease", &[]).await;
    bench
        .write("delete from job where id = $1", &[bench.job.as_str()])
        .await;
    let orphans = bench.store.orphaned_instances(&existing).await.unwrap();
    assert_eq!(orphans.len(), 2);
    let kept = [owned];
    assert_eq!(
        bench.store.forget_instances("here", &kept).await.unwrap(),
        0,
        "it still exists"
    );
    assert_eq!(
        bench.store.forget_instances("there", &[]).await.unwrap(),
        0,
        "it is elsewhere"
    );
    assert_eq!(bench.store.forget_instances("here", &[]).await.unwrap(), 1);
}
