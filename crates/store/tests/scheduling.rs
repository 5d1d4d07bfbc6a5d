//! What the scheduler does in the database, against a real Postgres: slots, timers, lost leases, messages.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::job::{Event, State};
use domain::message::{Command, Message, TraceHeaders};
use domain::{JobId, SourceId, TenantId};
use sqlx::PgPool;
use store::Store;
use store::job::{Change, Guard, Transitioned};
use store::lease::{Claim, Lease};
use store::timer::TimerKind;

const TTL: Duration = Duration::from_secs(30);

struct World {
    store: Store,
    pool: PgPool,
    _database: testkit::Database,
}

impl World {
    async fn new() -> Self {
        let database = testkit::postgres().await;
        Self {
            store: database.store().await,
            pool: database.pool().await,
            _database: database,
        }
    }

    async fn run(&self, sql: &'static str, id: &str) {
        sqlx::query(sql).bind(id).execute(&self.pool).await.unwrap();
    }

    async fn tenant(&self, max_running: i32) -> TenantId {
        let tenant = TenantId::generate();
        sqlx::query("insert into tenant (id, name, max_running) values ($1, $1, $2)")
            .bind(tenant.as_str())
            .bind(max_running)
            .execute(&self.pool)
            .await
            .unwrap();
        tenant
    }

    /// A job in Ready, of a source of its own whose agent was heard just now.
    async fn job(&self, tenant: &TenantId) -> JobId {
        let (source, job_id) = (SourceId::generate(), JobId::generate());
        sqlx::query(
            "insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform)
             values ($1, $2, $1, '', $1::bytea, '0', '0', '0')",
        )
        .bind(source.as_str())
        .bind(tenant.as_str())
        .execute(&self.pool)
        .await
        .unwrap();
        sqlx::query(
            "insert into job (id, tenant, source_id, region_id, name, image_name, valid_until)
             values ($1, $2, $3, 'local', $1, $1, now() + interval '30 days')",
        )
        .bind(job_id.as_str())
        .bind(tenant.as_str())
        .bind(source.as_str())
        .execute(&self.pool)
        .await
        .unwrap();
        job_id
    }

    async fn started(&self, tenant: &TenantId) -> JobId {
        let job_id = self.job(tenant).await;
        self.start(tenant, &job_id).await;
        job_id
    }

    async fn start(&self, tenant: &TenantId, job_id: &JobId) {
        let moved = self
            .event(job_id, Event::Start, Guard::Tenant(tenant))
            .await;
        assert!(matches!(moved, Transitioned::Moved(_)), "{moved:?}");
    }

    async fn event(&self, job_id: &JobId, event: Event, guard: Guard<'_>) -> Transitioned {
        let headers = TraceHeaders::new();
        let change = Change {
            event,
            guard,
            actor: "test",
            detail: "",
            failure: None,
            headers: &headers,
        };
        self.store.transition(job_id, change).await.unwrap()
    }

    async fn leased(&self, job_id: &JobId) -> Lease {
        match self.store.claim_run(job_id, "w-test", TTL).await.unwrap() {
            Claim::Granted(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, job_id: &JobId) -> State {
        let state: String = sqlx::query_scalar("select state from job where id = $1")
            .bind(job_id.as_str())
            .fetch_one(&self.pool)
            .await
            .unwrap();
        state.parse().unwrap()
    }

    async fn timer(&self, job_id: &JobId, kind: TimerKind) {
        sqlx::query(
            "insert into timer (job_id, kind, due_at) values ($1, $2, now() - interval '1 s')",
        )
        .bind(job_id.as_str())
        .bind(kind.as_str())
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn due_again(&self, job_id: &JobId) {
        self.run(
            "update timer set due_at = now() - interval '1 s' where job_id = $1",
            job_id.as_str(),
        )
        .await;
    }

    async fn expire_lease(&self, job_id: &JobId) {
        self.run(
            "update job_lease set expires_at = now() - interval '1 s' where job_id = $1",
            job_id.as_str(),
        )
        .await;
    }

    /// Every message in the outbox, which is emptied.
    async fn messages(&self) -> Vec<Message> {
        let batch = self.store.take_messages(1000).await.unwrap();
        let messages = batch
            .messages
            .iter()
            .map(|waiting| waiting.message.clone())
            .collect();
        let ids: Vec<_> = batch.messages.iter().map(|waiting| waiting.id).collect();
        batch.published(&ids).await.unwrap();
        messages
    }

    async fn starts(&self) -> Vec<JobId> {
        let messages = self.messages().await;
        messages
            .into_iter()
            .filter_map(|message| match message {
                Message::Command(Command::StartRun { job_id, .. }) => Some(job_id),
                _ => None,
            })
            .collect()
    }
}

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

#[tokio::test]
async fn two_relays_never_hold_the_same_message_and_what_failed_comes_again() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    for _ in 0..4 {
        world.started(&tenant).await;
    }
    let first = world.store.take_messages(2).await.unwrap();
    let second = world.store.take_messages(100).await.unwrap();
    assert_eq!((first.messages.len(), second.messages.len()), (2, 2));
    assert!(
        first
            .messages
            .iter()
            .all(|message| !second.messages.contains(message))
    );
    let oldest = first.messages[0].clone();
    // The first relay falls; the second could publish one of its two.
    drop(first);
    let published = second.messages[0].id;
    second.published(&[published]).await.unwrap();
    let left = world.store.take_messages(100).await.unwrap();
    assert_eq!(left.messages.len(), 3);
    assert_eq!(left.messages[0], oldest, "in order");
}

#[tokio::test]
async fn a_message_that_nobody_can_read_is_buried_and_does_not_stop_the_next() {
    let world = World::new().await;
    sqlx::query("insert into outbox (id, message, created_at) values (gen_random_uuid(), '{\"kind\": \"from the future\"}', now() - interval '1 hour')")
        .execute(&world.pool)
        .await
        .unwrap();
    let tenant = world.tenant(10).await;
    world.started(&tenant).await;
    let batch = world.store.take_messages(100).await.unwrap();
    assert_eq!((batch.messages.len(), batch.unreadable.len()), (1, 1));
    let published = batch.messages[0].id;
    batch.published(&[published]).await.unwrap();
    assert!(world.store.take_messages(100).await.unwrap().is_empty());
    let (subject, payload): (String, Vec<u8>) =
        sqlx::query_as("select subject, payload from dead_letter")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(subject, "outbox");
    assert!(
        String::from_utf8(payload)
            .unwrap()
            .contains("from the future")
    );
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
