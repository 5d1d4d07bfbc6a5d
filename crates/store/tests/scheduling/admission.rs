//! The choice of jobs that get a slot, and its time.

use domain::JobId;
use domain::job::Event;
use store::job::Guard;

use super::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn admission_never_passes_the_limit_however_many_admit_at_once() {
    let world = World::new().await;
    let tenant = world.tenant(3).await;
    for _ in 0..12 {
        world.started(&tenant).await;
    }
    let admitters = (0..8).map(|_| {
        let store = world.store.clone();
        tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..5 {
                admitted += store.admit_round(100).await.unwrap().len();
            }
            admitted
        })
    });
    let mut admitted = 0;
    for admitter in admitters.collect::<Vec<_>>() {
        admitted += admitter.await.unwrap();
    }
    assert_eq!(admitted, 3);
    assert_eq!(world.starts().await.len(), 3, "one message for each slot");
}

#[tokio::test]
async fn a_slot_is_free_again_when_the_run_ends() {
    let world = World::new().await;
    let tenant = world.tenant(1).await;
    let (first, second) = (world.started(&tenant).await, world.started(&tenant).await);
    assert_eq!(
        world.store.admit_round(10).await.unwrap()[0].job_id,
        first,
        "the older comes first"
    );
    assert!(world.store.admit_round(10).await.unwrap().is_empty());
    let lease = world.leased(&first).await;
    world
        .event(&first, Event::Fail, Guard::Lease(lease.epoch))
        .await;
    assert_eq!(world.store.admit_round(10).await.unwrap()[0].job_id, second);
}

#[tokio::test]
async fn a_flood_does_not_keep_a_small_tenant_waiting() {
    let world = World::new().await;
    let (flood, small) = (world.tenant(100).await, world.tenant(100).await);
    for _ in 0..40 {
        world.started(&flood).await;
    }
    let job = world.started(&small).await;
    let window = 6;
    let mut order = Vec::new();
    loop {
        let round = world.store.admit_round(window).await.unwrap();
        if round.is_empty() {
            break;
        }
        order.extend(round.into_iter().map(|admitted| admitted.job_id));
    }
    let place = order.iter().position(|admitted| *admitted == job);
    assert!(
        place.is_some_and(|place| place < 2),
        "the small tenant's job is the first or second: {place:?}"
    );
    assert_eq!(order.len(), 6, "no more wait for a worker than the window");
    world.leased(&order[0]).await;
    assert_eq!(
        world.store.admit_round(window).await.unwrap().len(),
        1,
        "a worker that comes makes room for one"
    );
}

#[tokio::test]
async fn a_lowered_limit_starts_nothing_until_it_fits() {
    let world = World::new().await;
    let tenant = world.tenant(2).await;
    for _ in 0..3 {
        world.started(&tenant).await;
    }
    while !world.store.admit_round(10).await.unwrap().is_empty() {}
    world
        .run(
            "update tenant set max_running = 1 where id = $1",
            tenant.as_str(),
        )
        .await;
    assert!(world.store.admit_round(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_flood_that_filled_the_window_does_not_take_every_place_that_becomes_free() {
    let world = World::new().await;
    let (flood, small) = (world.tenant(100).await, world.tenant(100).await);
    for _ in 0..12 {
        world.started(&flood).await;
    }
    let window = 3;
    let mut waiting = Vec::new();
    loop {
        let round = world.store.admit_round(window).await.unwrap();
        if round.is_empty() {
            break;
        }
        waiting.extend(round.into_iter().map(|admitted| admitted.job_id));
    }
    let job = world.started(&small).await;
    // One worker comes, so that one place is free.
    world.leased(&waiting[0]).await;
    let round = world.store.admit_round(window).await.unwrap();
    let next: Vec<JobId> = round.into_iter().map(|admitted| admitted.job_id).collect();
    assert_eq!(next, [job], "the tenant with fewer slots is next");
}
