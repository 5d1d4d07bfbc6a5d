//! Places of workers: shared between tenants, released by runs whose agent is silent, and requested.

use std::time::Duration;

use domain::job::{Event, State};
use domain::{JobId, TenantId};
use store::job::{Guard, Transitioned};
use store::lease::Lease;
use store::parking::Parking;
use store::timer::TimerKind;

use super::{TTL, World};

const WINDOW: i64 = 32;
const SILENT: Parking = Parking::Silent {
    since: Duration::from_secs(61),
    at_most: Duration::from_secs(3000),
};

impl World {
    async fn worker(&self, slots: u32) {
        let lives = self.store.worker_lives("w-test", slots, TTL).await;
        lives.unwrap();
    }

    /// Admits until no job gets a slot, and lets a worker take the admitted jobs up to Syncing.
    async fn dispatch(&self) -> Vec<(JobId, Lease)> {
        let mut taken = Vec::new();
        loop {
            let round = self.store.admit_round(WINDOW).await.unwrap();
            if round.is_empty() {
                return taken;
            }
            for admitted in round {
                let lease = self.leased(&admitted.job_id).await;
                let prepared = self
                    .event(&admitted.job_id, Event::Prepared, Guard::Lease(lease.epoch))
                    .await;
                assert!(matches!(prepared, Transitioned::Moved(_)), "{prepared:?}");
                taken.push((admitted.job_id, lease));
            }
        }
    }

    async fn parked(&self, (job_id, lease): &(JobId, Lease), parking: Parking) {
        let parked = self
            .store
            .park_run(job_id, lease.epoch, "w-test", parking)
            .await
            .unwrap();
        assert!(matches!(parked, Transitioned::Moved(_)), "{parked:?}");
    }

    async fn jobs(&self, tenant: &TenantId, count: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        for _ in 0..count {
            jobs.push(self.started(tenant).await);
        }
        jobs
    }

    /// Returns the number of places that each of the tenants holds.
    async fn held<const N: usize>(&self, tenants: [&TenantId; N]) -> [i64; N] {
        let mut held = [0; N];
        for (place, tenant) in held.iter_mut().zip(tenants) {
            *place = sqlx::query_scalar(
                "select count(*) from job where tenant = $1 and admitted_at is not null",
            )
            .bind(tenant.as_str())
            .fetch_one(&self.pool)
            .await
            .unwrap();
        }
        held
    }

    async fn until_resumed(&self, job_id: &JobId) -> f64 {
        sqlx::query_scalar(
            "select extract(epoch from due_at - now())::float8 from timer where job_id = $1 and kind = 'resume'",
        )
        .bind(job_id.as_str())
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    async fn source_of(&self, job_id: &JobId) -> domain::SourceId {
        let source: String = sqlx::query_scalar("select source_id from job where id = $1")
            .bind(job_id.as_str())
            .fetch_one(&self.pool)
            .await
            .unwrap();
        source.parse().unwrap()
    }
}

#[tokio::test]
async fn workers_are_given_no_more_than_they_have_places_for() {
    let world = World::new().await;
    let tenant = world.tenant(100).await;
    world.jobs(&tenant, 12).await;
    world.worker(8).await;
    let taken = world.dispatch().await;
    assert_eq!(taken.len(), 8);
    world.store.worker_lives("w-more", 2, TTL).await.unwrap();
    assert_eq!(world.dispatch().await.len(), 2, "another worker has more");
    world.store.worker_leaves("w-more").await.unwrap();
    world
        .event(&taken[0].0, Event::Fail, Guard::Lease(taken[0].1.epoch))
        .await;
    assert!(
        world.dispatch().await.is_empty(),
        "9 runs are too many for 8 places"
    );
}

#[tokio::test]
async fn silent_agents_of_one_tenant_keep_no_place_from_another() {
    let world = World::new().await;
    let (silent, right) = (world.tenant(50).await, world.tenant(50).await);
    world.jobs(&silent, 12).await;
    world.worker(8).await;
    let taken = world.dispatch().await;
    assert_eq!(world.held([&silent, &right]).await, [8, 0]);
    let job = world.started(&right).await;
    assert!(world.dispatch().await.is_empty(), "no place is free");

    world.parked(&taken[3], SILENT).await;
    let next = world.dispatch().await;
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].0, job, "the first place that becomes free");
    assert_eq!(world.held([&silent, &right]).await, [7, 1]);
}

#[tokio::test]
async fn places_that_become_free_together_go_to_those_who_hold_the_fewest() {
    let world = World::new().await;
    let (rich, poor, limited) = (
        world.tenant(50).await,
        world.tenant(50).await,
        world.tenant(1).await,
    );
    world.jobs(&rich, 20).await;
    world.worker(8).await;
    let taken = world.dispatch().await;
    world.jobs(&poor, 5).await;
    world.jobs(&limited, 5).await;
    for run in &taken[..4] {
        world.parked(run, SILENT).await;
    }
    world.dispatch().await;
    assert_eq!(
        world.held([&rich, &poor, &limited]).await,
        [4, 3, 1],
        "a tenant at its own limit keeps nobody waiting"
    );
}

#[tokio::test]
async fn a_parked_run_holds_nothing_keeps_its_copy_and_is_resumed_ever_less_often() {
    let world = World::new().await;
    let tenant = world.tenant(50).await;
    let job = world.started(&tenant).await;
    world.worker(8).await;
    for pause in [60.0, 120.0, 240.0, 480.0, 900.0, 900.0] {
        let taken = world.dispatch().await;
        assert_eq!(taken.len(), 1);
        world
            .run(
                "update job set bytes_durable = 4096 where id = $1",
                job.as_str(),
            )
            .await;
        world.parked(&taken[0], SILENT).await;
        let fenced = world
            .event(&job, Event::Synced, Guard::Lease(taken[0].1.epoch))
            .await;
        assert!(!matches!(fenced, Transitioned::Moved(_)), "{fenced:?}");
        assert_eq!(world.state(&job).await, State::Parked);
        assert_eq!(world.held([&tenant]).await, [0]);
        let left = world.until_resumed(&job).await;
        assert!((pause - 20.0..=pause).contains(&left), "{left} of {pause}");
        assert!(world.dispatch().await.is_empty(), "it is not its time");

        world.due_again(&job).await;
        let fired = world.store.fire_next_timer().await.unwrap().unwrap();
        assert_eq!(fired.kind, TimerKind::Resume);
        assert_eq!(world.state(&job).await, State::Preparing);
    }
    let (durable, run): (i64, i32) =
        sqlx::query_as("select bytes_durable, run from job where id = $1")
            .bind(job.as_str())
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(
        (durable, run),
        (4096, 1),
        "it is the same run, with its copy"
    );
    let facts = world.store.run_facts(&job).await.unwrap().unwrap();
    assert!(facts.silent_for >= Duration::from_secs(61));
}

#[tokio::test]
async fn a_run_looks_for_its_agent_once_more_when_its_patience_ends() {
    let world = World::new().await;
    let tenant = world.tenant(50).await;
    let job = world.started(&tenant).await;
    let taken = world.dispatch().await;
    let parking = Parking::Silent {
        since: Duration::from_secs(3590),
        at_most: Duration::from_secs(10),
    };
    world.parked(&taken[0], parking).await;
    assert!(world.until_resumed(&job).await <= 10.0);
}

#[tokio::test]
async fn a_parked_job_is_stopped_at_once() {
    let world = World::new().await;
    let tenant = world.tenant(50).await;
    let job = world.started(&tenant).await;
    let taken = world.dispatch().await;
    world.parked(&taken[0], SILENT).await;
    let stopped = world.event(&job, Event::Stop, Guard::Tenant(&tenant)).await;
    assert!(matches!(stopped, Transitioned::Moved(_)), "{stopped:?}");
    assert_eq!(world.state(&job).await, State::Stopped);
    world.start(&tenant, &job).await;
    assert_eq!(world.dispatch().await.len(), 1);
    let facts = world.store.run_facts(&job).await.unwrap().unwrap();
    assert_eq!(facts.silent_for, Duration::ZERO, "a new run begins anew");
}

#[tokio::test]
async fn an_agent_that_comes_back_resumes_its_run_and_one_that_never_left_does_not() {
    let world = World::new().await;
    let tenant = world.tenant(50).await;
    let job = world.started(&tenant).await;
    let source = world.source_of(&job).await;
    let taken = world.dispatch().await;
    world.parked(&taken[0], SILENT).await;
    let inventory = store::agent::Inventory {
        agent_version: "0".to_owned(),
        architecture: "0".to_owned(),
        platform: "0".to_owned(),
        kernel_level: 0,
        system_info: store::JsonValue::Null,
        disks: Vec::new(),
    };
    let heartbeat = store::agent::Heartbeat {
        inventory: &inventory,
        failure: None,
        interval_secs: 30,
        reports: &[],
        caller: None,
        clock_ahead_ms: None,
    };
    let beat = async || {
        let beat = world.store.agent_heartbeat(&source, heartbeat).await;
        beat.unwrap();
    };
    beat().await;
    assert!(
        world.until_resumed(&job).await > 0.0,
        "an agent that can't reach the receiver says so all the time"
    );
    world
        .run(
            "update source set last_seen_at = now() - interval '5 minutes' where id = $1",
            source.as_str(),
        )
        .await;
    beat().await;
    assert!(world.until_resumed(&job).await <= 0.0);
    world.store.fire_next_timer().await.unwrap().unwrap();
    assert_eq!(world.dispatch().await.len(), 1);
}

#[tokio::test]
async fn a_tenant_that_holds_most_is_asked_for_a_place_until_it_is_fair() {
    let world = World::new().await;
    let (rich, poor) = (world.tenant(50).await, world.tenant(50).await);
    world.jobs(&rich, 12).await;
    world.worker(8).await;
    let mut taken = world.dispatch().await;
    assert_eq!(
        world.store.ask_for_place(Duration::ZERO).await.unwrap(),
        None,
        "nobody waits that holds fewer"
    );
    world.jobs(&poor, 12).await;
    let patience = Duration::from_secs(600);
    assert_eq!(
        world.store.ask_for_place(patience).await.unwrap(),
        None,
        "every run keeps its place for a while"
    );
    for _ in 0..4 {
        let asked = world.store.ask_for_place(Duration::ZERO).await.unwrap();
        let asked = asked.expect("the other waits and holds fewer");
        assert_eq!(
            world.store.ask_for_place(Duration::ZERO).await.unwrap(),
            None,
            "one at a time"
        );
        let place = taken.iter().position(|(job_id, _)| *job_id == asked);
        let run = taken.remove(place.expect("a run that holds a place"));
        let held = [(run.0.clone(), run.1.epoch)];
        let renewed = world
            .store
            .renew_leases("w-test", &held, TTL)
            .await
            .unwrap();
        assert!(renewed[0].yields, "its worker reads so when it renews");
        world.parked(&run, Parking::Yields).await;
        assert_eq!(world.state(&run.0).await, State::Preparing);
        assert_eq!(world.dispatch().await.len(), 1);
    }
    assert_eq!(world.held([&rich, &poor]).await, [4, 4]);
    assert_eq!(
        world.store.ask_for_place(Duration::ZERO).await.unwrap(),
        None,
        "it is fair, and nobody takes turns for nothing"
    );
}
