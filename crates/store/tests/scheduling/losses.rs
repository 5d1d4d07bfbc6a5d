//! Leases whose holder is lost, and requests without a response.

use std::time::Duration;

use domain::job::{Event, State};
use domain::message::{Command, Message};
use store::job::{Guard, Transitioned};

use super::World;

#[tokio::test]
async fn a_dead_lease_is_swept_once_and_its_run_asked_for_again() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.started(&tenant).await;
    world.store.admit_round(10).await.unwrap();
    let lease = world.leased(&job_id).await;
    world
        .event(&job_id, Event::Prepared, Guard::Lease(lease.epoch))
        .await;
    world.messages().await;
    assert!(
        world.store.sweep_lease().await.unwrap().is_none(),
        "a live lease is nobody's to take"
    );

    world.expire_lease(&job_id).await;
    let (first, second) = tokio::join!(world.store.sweep_lease(), world.store.sweep_lease());
    let swept = [first.unwrap(), second.unwrap()]
        .into_iter()
        .flatten()
        .count();
    assert_eq!(swept, 1, "two sweepers do what one does");
    assert_eq!(world.state(&job_id).await, State::Preparing);
    assert_eq!(world.starts().await, std::slice::from_ref(&job_id));
    let late = world
        .event(&job_id, Event::Synced, Guard::Lease(lease.epoch))
        .await;
    assert!(
        !matches!(late, Transitioned::Moved(_)),
        "the old owner changes nothing: {late:?}"
    );
    assert!(world.leased(&job_id).await.epoch > lease.epoch);
}

#[tokio::test]
async fn a_job_that_was_to_stop_stops_when_its_lease_is_lost() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.started(&tenant).await;
    world.store.admit_round(10).await.unwrap();
    let lease = world.leased(&job_id).await;
    world
        .event(&job_id, Event::Prepared, Guard::Lease(lease.epoch))
        .await;
    assert_eq!(
        world
            .event(&job_id, Event::Stop, Guard::Tenant(&tenant))
            .await,
        Transitioned::Recorded
    );
    world.expire_lease(&job_id).await;
    world.store.sweep_lease().await.unwrap();
    assert_eq!(world.state(&job_id).await, State::Stopped);
}

#[tokio::test]
async fn a_run_that_kills_its_workers_fails_and_progress_forgives() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let job_id = world.started(&tenant).await;
    world.store.admit_round(10).await.unwrap();
    let lose = async || {
        world.leased(&job_id).await;
        world.expire_lease(&job_id).await;
        world.store.sweep_lease().await.unwrap();
    };
    lose().await;
    lose().await;
    world
        .run(
            "update job set leases_lost = 0 where id = $1 and leases_lost = 2",
            job_id.as_str(),
        )
        .await;
    lose().await;
    lose().await;
    assert_eq!(
        world.state(&job_id).await,
        State::Preparing,
        "what lies before progress does not count"
    );
    lose().await;
    assert_eq!(world.state(&job_id).await, State::InError);
    let code: Option<String> = sqlx::query_scalar("select failure_code from job where id = $1")
        .bind(job_id.as_str())
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(code.as_deref(), Some("ReplicationJob.WorkerLost"));
    world.start(&tenant, &job_id).await;
}

#[tokio::test]
async fn what_nobody_did_is_asked_for_again_once_in_a_while() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    let (waiting, deleted) = (world.started(&tenant).await, world.job(&tenant).await);
    world.store.admit_round(10).await.unwrap();
    world
        .event(&deleted, Event::Delete, Guard::Tenant(&tenant))
        .await;
    world.messages().await;
    let age = Duration::from_secs(60);
    assert_eq!(
        world.store.reconcile(age).await.unwrap(),
        Default::default(),
        "nothing has waited so long"
    );
    world
        .run("update job set admitted_at = admitted_at - interval '2 min', state_since = state_since - interval '2 min' where tenant = $1", tenant.as_str())
        .await;
    let reconciled = world.store.reconcile(age).await.unwrap();
    assert_eq!((reconciled.starts, reconciled.removals), (1, 1));
    let messages = world.messages().await;
    assert!(messages.iter().any(|message| matches!(message, Message::Command(Command::StartRun { job_id, .. }) if *job_id == waiting)));
    assert!(messages.contains(&Message::Command(Command::RemoveJob { job_id: deleted })));
    assert_eq!(
        world.store.reconcile(age).await.unwrap(),
        Default::default(),
        "not again before its time"
    );
}
