//! Timers that are due.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::job::{Event, State};
use domain::message::{Command, Message};
use store::job::{Guard, Transitioned};
use store::timer::TimerKind;

use super::World;

#[tokio::test]
async fn a_scheduled_job_starts_when_it_is_due_and_its_source_is_there() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.job(&tenant).await;
    world.timer(&job_id, TimerKind::Start).await;
    world
        .run(
            "update source set last_seen_at = now() - interval '1 hour' where tenant = $1",
            tenant.as_str(),
        )
        .await;
    let fired = world.store.fire_next_timer().await.unwrap().unwrap();
    assert_eq!(
        (fired.kind, fired.transitioned),
        (TimerKind::Start, None),
        "an offline source is waited for"
    );
    assert!(
        world.store.fire_next_timer().await.unwrap().is_none(),
        "not again at once"
    );
    assert_eq!(world.state(&job_id).await, State::Ready);

    world
        .run(
            "update source set last_seen_at = now() where tenant = $1",
            tenant.as_str(),
        )
        .await;
    world.due_again(&job_id).await;
    let fired = world.store.fire_next_timer().await.unwrap().unwrap();
    assert!(
        matches!(fired.transitioned, Some(Transitioned::Moved(_))),
        "{fired:?}"
    );
    assert_eq!(world.state(&job_id).await, State::Preparing);
    assert!(
        world.store.until_next_timer().await.unwrap().is_none(),
        "a timer fires once"
    );
}

#[tokio::test]
async fn expiry_waits_for_the_run_and_purge_deletes() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.started(&tenant).await;
    world.timer(&job_id, TimerKind::Expire).await;
    let fired = world.store.fire_next_timer().await.unwrap().unwrap();
    assert_eq!(
        fired.transitioned, None,
        "running at its end of validity: nothing happens"
    );
    assert_eq!(world.state(&job_id).await, State::Preparing);

    world.store.admit_round(10).await.unwrap();
    let lease = world.leased(&job_id).await;
    world
        .event(&job_id, Event::Halted, Guard::Lease(lease.epoch))
        .await;
    world
        .store
        .release_lease(&job_id, lease.epoch)
        .await
        .unwrap();
    world.due_again(&job_id).await;
    world.store.fire_next_timer().await.unwrap().unwrap();
    assert_eq!(
        world.state(&job_id).await,
        State::Expired,
        "it expires when its run has ended without an image"
    );

    let until = world.store.until_next_timer().await.unwrap().unwrap();
    assert!(
        until > Duration::from_secs(6 * 86_400) && until <= Duration::from_secs(7 * 86_400),
        "{until:?}"
    );
    world.due_again(&job_id).await;
    assert_eq!(
        world.store.fire_next_timer().await.unwrap().unwrap().kind,
        TimerKind::Purge
    );
    assert_eq!(world.state(&job_id).await, State::Deleting);
    let messages = world.messages().await;
    assert!(
        messages.contains(&Message::Command(Command::RemoveJob { job_id })),
        "a worker is told"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn expire_and_start_at_once_end_in_one_of_both() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let mut outcomes: BTreeMap<State, usize> = BTreeMap::new();
    for _ in 0..20 {
        let job_id = world.job(&tenant).await;
        world.timer(&job_id, TimerKind::Expire).await;
        let (starting, expiring) = tokio::join!(
            world.event(&job_id, Event::Start, Guard::Tenant(&tenant)),
            world.store.fire_next_timer(),
        );
        let expired = expiring.unwrap().and_then(|fired| fired.transitioned);
        let state = world.state(&job_id).await;
        let started = matches!(starting, Transitioned::Moved(_));
        let did_expire = matches!(expired, Some(Transitioned::Moved(_)));
        assert!(
            started != did_expire,
            "start: {starting:?}, expire: {expired:?}"
        );
        assert_eq!(
            state,
            if started {
                State::Preparing
            } else {
                State::Expired
            }
        );
        *outcomes.entry(state).or_default() += 1;
        world
            .run("delete from timer where job_id = $1", job_id.as_str())
            .await;
    }
    println!("{outcomes:?}");
}

#[tokio::test]
async fn a_start_that_is_found_after_the_end_of_validity_expires() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.job(&tenant).await;
    world.timer(&job_id, TimerKind::Expire).await;
    world.timer(&job_id, TimerKind::Start).await;
    world
        .run(
            "update job set valid_until = now() - interval '1 s' where id = $1",
            job_id.as_str(),
        )
        .await;
    world
        .run(
            "update timer set due_at = now() - interval '1 hour' where job_id = $1 and kind = 'start'",
            job_id.as_str(),
        )
        .await;
    while world.store.fire_next_timer().await.unwrap().is_some() {}
    assert_eq!(world.state(&job_id).await, State::Expired);
    assert!(world.starts().await.is_empty());
}

#[tokio::test]
async fn a_timer_waits_for_a_worker_that_still_holds_a_stopped_job() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.started(&tenant).await;
    world.store.admit_round(10).await.unwrap();
    let lease = world.leased(&job_id).await;
    world
        .event(&job_id, Event::Halted, Guard::Lease(lease.epoch))
        .await;
    world.timer(&job_id, TimerKind::Expire).await;
    let fired = world.store.fire_next_timer().await.unwrap().unwrap();
    assert_eq!(fired.transitioned, None, "the lease is not released yet");

    world
        .store
        .release_lease(&job_id, lease.epoch)
        .await
        .unwrap();
    world.due_again(&job_id).await;
    world.store.fire_next_timer().await.unwrap();
    assert_eq!(world.state(&job_id).await, State::Expired);
}
