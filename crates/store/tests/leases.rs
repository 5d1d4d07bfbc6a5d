//! Leases, and what only their holder may write, against a real Postgres.

use std::time::Duration;

use domain::job::{Event, Intent, State};
use domain::message::TraceHeaders;
use domain::status_info::StatusInfo;
use domain::{Epoch, Failure, FailureCode, ImageId, InstanceId, JobId, Run, SourceId, TenantId};
use sqlx::PgPool;
use store::instance::{Authority, Instance};
use store::job::{Change, Guard, Transitioned};
use store::lease::{Claim, Lease};
use store::run::Observation;
use store::{ConnectConfig, ErrorKind, Store};

const TTL: Duration = Duration::from_secs(30);

struct Bench {
    store: Store,
    pool: PgPool,
    tenant: TenantId,
    source: SourceId,
    job: JobId,
    database: testkit::Database,
}

impl Bench {
    /// A job that was started and has a slot.
    async fn new() -> Self {
        let database = testkit::postgres().await;
        let bench = Self {
            store: database.store().await,
            pool: database.pool().await,
            tenant: TenantId::generate(),
            source: SourceId::generate(),
            job: JobId::generate(),
            database,
        };
        let (tenant, source) = (bench.tenant.as_str(), bench.source.as_str());
        bench
            .write("insert into tenant (id, name) values ($1, $1)", &[tenant])
            .await;
        bench
            .write(
                "insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform)
                 values ($1, $2, 'web', '', 'key', '1', 'x86_64', 'Linux')",
                &[source, tenant],
            )
            .await;
        bench
            .write(
                "insert into job (id, tenant, source_id, region_id, name, image_name, valid_until)
                 values ($1, $2, $3, 'r', 'job', 'image', now() + interval '1 day')",
                &[bench.job.as_str(), tenant, source],
            )
            .await;
        bench.start().await;
        bench
    }

    async fn write(&self, statement: &'static str, values: &[&str]) {
        let mut query = sqlx::query(statement);
        for &value in values {
            query = query.bind(value);
        }
        query.execute(&self.pool).await.unwrap();
    }

    async fn read(&self, expression: &str) -> String {
        let query = format!("select ({expression})::text from job where id = $1");
        sqlx::query_scalar::<_, Option<String>>(sqlx::AssertSqlSafe(query))
            .bind(self.job.as_str())
            .fetch_one(&self.pool)
            .await
            .unwrap()
            .unwrap_or_default()
    }

    /// The tenant starts the job, and the scheduler gives it a slot.
    async fn start(&self) {
        let started = self.send(Event::Start, Guard::Tenant(&self.tenant)).await;
        assert!(matches!(started, Transitioned::Moved(_)), "{started:?}");
        assert_eq!(self.store.admit_round(10).await.unwrap().len(), 1);
    }

    async fn claim(&self, worker: &str) -> Claim {
        self.store.claim_run(&self.job, worker, TTL).await.unwrap()
    }

    async fn lease(&self, worker: &str) -> Lease {
        match self.claim(worker).await {
            Claim::Granted(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// Time passes until every lease has run out.
    async fn leases_run_out(&self) {
        self.write("update job_lease set expires_at = now()", &[])
            .await;
    }

    /// The worker is lost: its lease runs out, the sweeper takes it away, another claims.
    async fn another_owner(&self) -> Lease {
        self.leases_run_out().await;
        self.store
            .sweep_lease()
            .await
            .unwrap()
            .expect("a dead lease");
        assert_eq!(self.read("state").await, "preparing");
        self.lease("w-second").await
    }

    async fn send(&self, event: Event, guard: Guard<'_>) -> Transitioned {
        let failure = Failure::new(FailureCode::Internal, "It failed.");
        let change = Change {
            event,
            guard,
            actor: "test",
            detail: "",
            failure: (event == Event::Fail).then_some(&failure),
            headers: &TraceHeaders::new(),
        };
        self.store.transition(&self.job, change).await.unwrap()
    }

    async fn report(&self, lease: &Lease, event: Event) -> Transitioned {
        self.send(event, Guard::Lease(lease.epoch)).await
    }

    /// The lease holder goes through the phases up to `state`.
    async fn advance(&self, lease: &Lease, state: State) {
        for event in [Event::Prepared, Event::Synced, Event::Processed] {
            if self.read("state").await == state.as_str() {
                return;
            }
            let moved = self.report(lease, event).await;
            assert!(matches!(moved, Transitioned::Moved(_)), "{moved:?}");
        }
        assert_eq!(self.read("state").await, state.as_str());
    }

    async fn observe(&self, lease: &Lease, bytes_durable: u64, is_first: bool) -> bool {
        let observation = Observation {
            info: StatusInfo::default(),
            bytes_durable,
            bytes_total: 1000,
            instance_id: None,
            is_first,
        };
        self.store
            .observe(&self.job, lease.epoch, &observation)
            .await
            .unwrap()
            .is_some()
    }

    fn instance(&self, lease: &Lease) -> Instance {
        Instance {
            id: InstanceId::generate(),
            tenant: self.tenant.clone(),
            job_id: self.job.clone(),
            run: lease.run,
            epoch: lease.epoch,
            provider: "process".to_owned(),
            host: "here".to_owned(),
            authority: Authority {
                certificate_pem: "certificate".to_owned(),
                key_pem: "the secret key".to_owned(),
            },
        }
    }

    async fn is_gone(&self) -> bool {
        let jobs: i64 = sqlx::query_scalar("select count(*) from job where id = $1")
            .bind(self.job.as_str())
            .fetch_one(&self.pool)
            .await
            .unwrap();
        jobs == 0
    }
}

#[tokio::test]
async fn of_many_workers_that_claim_at_once_one_gets_the_lease() {
    let bench = Bench::new().await;
    let names: Vec<String> = (0..6).map(|number| format!("w-{number}")).collect();
    // Many rounds: the second worker must meet the first one between its look and its grant.
    for round in 1..=20 {
        let claims = futures::future::join_all(names.iter().map(|name| bench.claim(name))).await;
        let granted = claims
            .iter()
            .filter(|claim| matches!(claim, Claim::Granted(_)))
            .count();
        assert_eq!(granted, 1, "round {round}: {claims:?}");
        assert!(
            claims
                .iter()
                .all(|claim| matches!(claim, Claim::Granted(_) | Claim::Held))
        );
        assert_eq!(bench.read("epoch").await, round.to_string());
        bench.write("delete from job_lease", &[]).await;
    }
}

#[tokio::test]
async fn a_job_that_is_not_to_run_is_not_leased() {
    let bench = Bench::new().await;
    let lease = bench.lease("w-first").await;
    bench.report(&lease, Event::Halted).await;
    bench
        .store
        .release_lease(&bench.job, lease.epoch)
        .await
        .unwrap();
    assert_eq!(
        bench.claim("w-late").await,
        Claim::NotWanted,
        "it is stopped"
    );
    bench.send(Event::Start, Guard::Tenant(&bench.tenant)).await;
    assert_eq!(
        bench.claim("w-early").await,
        Claim::NotWanted,
        "it has no slot"
    );
    let unknown = JobId::generate();
    let claim = bench.store.claim_run(&unknown, "w", TTL).await.unwrap();
    assert_eq!(claim, Claim::NotWanted, "it is gone");
}

#[tokio::test]
async fn every_lease_of_a_job_has_a_higher_epoch_over_all_its_runs() {
    let bench = Bench::new().await;
    let first = bench.lease("w-first").await;
    assert_eq!((first.run, first.epoch), (Run(1), Epoch(1)));
    assert!(first.waited.is_some(), "how long the run waited is known");
    let second = bench.another_owner().await;
    assert_eq!((second.run, second.epoch), (Run(1), Epoch(2)));
    bench.report(&second, Event::Halted).await;
    bench
        .store
        .release_lease(&bench.job, second.epoch)
        .await
        .unwrap();
    bench.start().await;
    let third = bench.lease("w-third").await;
    assert_eq!((third.run, third.epoch), (Run(2), Epoch(3)));
}

#[tokio::test]
async fn a_dead_lease_is_left_to_the_sweeper_which_counts_it() {
    let bench = Bench::new().await;
    for lost in 1..=3 {
        let lease = bench.lease("w-dies").await;
        bench.advance(&lease, State::Syncing).await;
        bench.leases_run_out().await;
        assert_eq!(bench.claim("w-next").await, Claim::Held);
        bench
            .store
            .sweep_lease()
            .await
            .unwrap()
            .expect("a dead lease");
        assert_eq!(bench.read("leases_lost").await, lost.to_string());
    }
    assert_eq!(
        bench.read("state || ' ' || failure_code").await,
        format!("in_error {}", FailureCode::WorkerLost),
        "a run that kills its workers is not tried for ever"
    );
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_not_renewed_even_if_nobody_took_it() {
    let bench = Bench::new().await;
    let lease = bench.lease("w-slow").await;
    let held = [(bench.job.clone(), lease.epoch)];
    let renewed = bench
        .store
        .renew_leases("w-slow", &held, TTL)
        .await
        .unwrap();
    assert_eq!(renewed.len(), 1);
    let other = bench.store.renew_leases("w-other", &held, TTL).await;
    assert!(other.unwrap().is_empty(), "it is not the other's lease");

    bench.leases_run_out().await;
    let renewed = bench
        .store
        .renew_leases("w-slow", &held, TTL)
        .await
        .unwrap();
    assert!(renewed.is_empty(), "the worker must claim again");
    assert_eq!(
        bench.report(&lease, Event::Prepared).await,
        Transitioned::Fenced
    );
    assert!(!bench.observe(&lease, 1, true).await);
}

#[tokio::test]
async fn a_renewal_says_that_a_stop_is_asked_for() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Syncing).await;
    let stop = bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    assert_eq!(stop, Transitioned::Recorded);
    let held = [(bench.job.clone(), lease.epoch)];
    let renewed = bench.store.renew_leases("w", &held, TTL).await.unwrap();
    assert_eq!(renewed[0].intent, Intent::Stop);
    bench.report(&lease, Event::Halted).await;
    assert_eq!(bench.read("state").await, "stopped");
}

#[tokio::test]
async fn a_stop_whose_worker_is_lost_stops_at_the_sweep() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Syncing).await;
    bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    bench.leases_run_out().await;
    bench.store.sweep_lease().await.unwrap();
    assert_eq!(bench.read("state").await, "stopped");
}

#[tokio::test]
async fn a_finish_beats_a_stop_that_came_before_it() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Syncing).await;
    let stop = bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    assert_eq!(stop, Transitioned::Recorded);
    for event in [Event::Synced, Event::Processed] {
        bench.report(&lease, event).await;
    }
    let finished = bench.report(&lease, Event::Finish).await;
    assert!(matches!(finished, Transitioned::Moved(_)), "{finished:?}");
    assert_eq!(bench.read("state || ' ' || intent").await, "finished rest");
    assert!(matches!(
        bench.report(&lease, Event::Halted).await,
        Transitioned::Ignored { .. }
    ));
}

#[tokio::test]
async fn a_stop_after_the_finish_changes_nothing() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Cleaning).await;
    bench.report(&lease, Event::Finish).await;
    let stop = bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    assert!(
        !matches!(stop, Transitioned::Moved(_) | Transitioned::Recorded),
        "{stop:?}"
    );
    assert_eq!(bench.read("state || ' ' || intent").await, "finished rest");
}

#[tokio::test]
async fn a_stale_epoch_writes_nothing_anywhere() {
    let bench = Bench::new().await;
    let stale = bench.lease("w-first").await;
    let (store, job) = (&bench.store, &bench.job);
    assert!(bench.observe(&stale, 100, true).await);
    let instance = store
        .take_instance(&bench.instance(&stale))
        .await
        .unwrap()
        .unwrap();
    let owner = bench.another_owner().await;
    let taken = store
        .take_instance(&bench.instance(&owner))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        taken.id, instance.id,
        "the next owner takes the instance over"
    );
    assert_eq!(taken.epoch, owner.epoch);
    assert_eq!(taken.authority, instance.authority, "and its authority");
    assert!(
        store
            .put_assignment(job, owner.epoch, b"new")
            .await
            .unwrap()
    );
    let image = store
        .begin_image(job, owner.epoch, &ImageId::generate())
        .await
        .unwrap()
        .unwrap()
        .id;

    assert!(!bench.observe(&stale, 900, false).await);
    assert_eq!(bench.read("bytes_durable").await, "100");
    assert_eq!(
        store.take_instance(&bench.instance(&stale)).await.unwrap(),
        None
    );
    store
        .remove_instance(&instance.id, stale.epoch)
        .await
        .unwrap();
    assert_eq!(store.instance_of(job).await.unwrap(), Some(instance.id));
    assert!(
        !store
            .put_assignment(job, stale.epoch, b"old")
            .await
            .unwrap()
    );
    store.remove_assignment(job, stale.epoch).await.unwrap();
    assert!(
        store
            .agent_report(job, owner.epoch)
            .await
            .unwrap()
            .is_some()
    );
    let begun = store
        .begin_image(job, stale.epoch, &ImageId::generate())
        .await
        .unwrap();
    assert_eq!(begun, None);
    let nothing = serde_json::json!({});
    assert!(
        !store
            .finish_image(&image, stale.epoch, "/old", &nothing)
            .await
            .unwrap()
    );
    for event in [Event::Prepared, Event::Halted, Event::Fail] {
        assert_eq!(
            bench.report(&stale, event).await,
            Transitioned::Fenced,
            "{event}"
        );
    }
    store.release_lease(job, stale.epoch).await.unwrap();
    let held = [(job.clone(), owner.epoch)];
    let renewed = store.renew_leases("w-second", &held, TTL).await.unwrap();
    assert_eq!(renewed.len(), 1, "the owner still holds its lease");
}

#[tokio::test]
async fn a_stale_finish_is_refused_and_the_owners_counts() {
    let bench = Bench::new().await;
    let stale = bench.lease("w-first").await;
    bench.advance(&stale, State::Cleaning).await;
    let owner = bench.another_owner().await;
    bench.advance(&owner, State::Cleaning).await;
    assert_eq!(
        bench.report(&stale, Event::Finish).await,
        Transitioned::Fenced
    );
    assert_eq!(bench.read("state").await, "cleaning");
    bench.report(&owner, Event::Finish).await;
    assert_eq!(bench.read("state").await, "finished");
}

#[tokio::test]
async fn a_drain_hands_the_run_over_at_once_and_counts_no_loss() {
    let bench = Bench::new().await;
    let lease = bench.lease("w-drains").await;
    bench.advance(&lease, State::Syncing).await;
    bench
        .store
        .hand_over(&bench.job, lease.epoch, "w-drains")
        .await
        .unwrap();
    assert_eq!(
        bench.read("state || ' ' || leases_lost").await,
        "preparing 0"
    );
    let asked: i64 = sqlx::query_scalar(
        "select count(*) from outbox where message::text ilike '%start_run%' or message::text ilike '%startrun%'",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!(asked, 2, "once by the admission, once by the drain");
    let next = bench.lease("w-next").await;
    assert_eq!(next.run, lease.run, "it is the same run");
    bench
        .store
        .hand_over(&bench.job, lease.epoch, "w-drains")
        .await
        .unwrap();
    let prepared = bench.report(&next, Event::Prepared).await;
    assert!(
        matches!(prepared, Transitioned::Moved(_)),
        "a late hand-over takes nothing from the next owner: {prepared:?}"
    );
}

#[tokio::test]
async fn progress_forgives_lost_leases_and_never_goes_back_within_a_lease() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.observe(&lease, 500, true).await;
    let lease = bench.another_owner().await;
    assert_eq!(bench.read("leases_lost").await, "1");
    bench.observe(&lease, 400, true).await;
    assert_eq!(
        bench.read("bytes_durable || ' ' || leases_lost").await,
        "400 1",
        "the first look says what is really there, and is no progress"
    );
    bench.observe(&lease, 300, false).await;
    bench.observe(&lease, 450, false).await;
    assert_eq!(
        bench.read("bytes_durable || ' ' || leases_lost").await,
        "450 0"
    );
}

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
    bench.report(&lease, Event::Halted).await;
    bench
        .store
        .release_lease(&bench.job, lease.epoch)
        .await
        .unwrap();
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
                .finish_image(&image, second.epoch, "/images/m", &description)
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

    /// How often a worker was asked to remove the image.
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
            .finish_image(&image, lease.epoch, "/images/m", &description);
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
    // A worker that did not know yet.
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

#[tokio::test]
async fn leases_lost_on_different_days_are_not_counted_together() {
    let bench = Bench::new().await;
    let lose = async |worker: &str| {
        bench.lease(worker).await;
        bench.leases_run_out().await;
        bench.store.sweep_lease().await.unwrap();
        bench.read("state || ' ' || leases_lost").await
    };
    assert_eq!(lose("w-1").await, "preparing 1");
    assert_eq!(lose("w-2").await, "preparing 2");
    bench
        .write(
            "update job set leases_lost_since = now() - interval '25 hours'",
            &[],
        )
        .await;
    assert_eq!(lose("w-3").await, "preparing 1");
    assert_eq!(lose("w-4").await, "preparing 2");
    assert_eq!(lose("w-5").await, "in_error 3");
}

#[tokio::test]
async fn a_disk_that_the_source_has_lost_is_still_one_of_the_runs() {
    let bench = Bench::new().await;
    let source = bench.source.as_str();
    for statement in [
        "insert into source_disk (source_id, index, path, size_bytes) values ($1, 0, '/dev/vda', 1000), ($1, 1, '/dev/vdb', 2000)",
        "insert into job_disk (job_id, index, size_gib, path, source_bytes)
         select job.id, disk.index, 20, disk.path, disk.size_bytes
         from job join source_disk as disk using (source_id) where source_id = $1",
        // The next heartbeat: one disk was detached, the other grew.
        "delete from source_disk where source_id = $1 and index = 1",
        "update source_disk set size_bytes = 1500 where source_id = $1",
    ] {
        bench.write(statement, &[source]).await;
    }
    let facts = bench.store.run_facts(&bench.job).await.unwrap().unwrap();
    let [grown, lost] = facts.disks.as_slice() else {
        panic!("the job is of two disks: {:?}", facts.disks)
    };
    assert_eq!((grown.source_bytes, lost.source_bytes), (1000, 2000));
    assert_eq!(grown.found.as_ref().unwrap().size_bytes, 1500);
    assert_eq!((lost.path.as_str(), &lost.found), ("/dev/vdb", &None));
}

#[tokio::test]
async fn what_somebody_holds_locked_for_long_may_be_tried_again() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    let mut patient = ConnectConfig::new(bench.database.url(), "test");
    patient.statement_timeout = Duration::from_millis(300);
    let impatient = Store::connect(&patient, bench.store.seal_key().clone())
        .await
        .unwrap();
    let mut holder = bench.pool.begin().await.unwrap();
    sqlx::query("select from job for update")
        .execute(&mut *holder)
        .await
        .unwrap();
    let observation = Observation::default();
    let refused = impatient
        .observe(&bench.job, lease.epoch, &observation)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused:?}");
    holder.rollback().await.unwrap();
    let written = impatient
        .observe(&bench.job, lease.epoch, &observation)
        .await;
    assert!(
        written.unwrap().is_some(),
        "the same call, once the row is free"
    );
}

#[tokio::test]
async fn leases_are_renewed_while_every_other_connection_is_in_use() {
    let bench = Bench::new().await;
    let mut small = ConnectConfig::new(bench.database.url(), "small");
    small.max_connections = 1;
    small.acquire_timeout = Duration::from_millis(300);
    let store = Store::connect(&small, bench.store.seal_key().clone())
        .await
        .unwrap();
    let lease = bench.lease("w").await;
    let _in_use = store.listen(&["anything"]).await.unwrap();
    store.ping().await.unwrap_err();
    let held = [(bench.job.clone(), lease.epoch)];
    let renewed = store.renew_leases("w", &held, TTL).await.unwrap();
    assert_eq!(renewed.len(), 1);
}

#[tokio::test]
async fn a_message_that_dies_twice_is_kept_once_and_goes_when_it_was_sent_again() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let headers = TraceHeaders::from([("traceparent".to_owned(), "00-1".to_owned())]);
    for reason in ["first", "second"] {
        store
            .bury_message("wherry.cmd.stop_run", b"nonsense", &headers, reason)
            .await
            .unwrap();
    }
    let letters = store.dead_letters(None, 10).await.unwrap();
    let [letter] = letters.as_slice() else {
        panic!("one message: {letters:?}")
    };
    assert_eq!((letter.times, letter.reason.as_str()), (2, "second"));
    assert_eq!(letter.headers, headers);
    assert!(store.take_retried_letter().await.unwrap().is_none());
    assert!(!store.retry_dead_letter(letter.id + 1).await.unwrap());
    assert!(store.retry_dead_letter(letter.id).await.unwrap());

    let taken = store.take_retried_letter().await.unwrap().unwrap();
    assert_eq!(&taken.letter, letter);
    assert!(
        store.take_retried_letter().await.unwrap().is_none(),
        "another relay leaves it alone"
    );
    drop(taken);
    let again = testkit::wait::some(TTL, "a relay that fell leaves it", async || {
        Ok(store.take_retried_letter().await?)
    });
    again.await.unwrap().sent().await.unwrap();
    assert!(store.dead_letters(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_of_the_outbox_that_could_not_be_read_goes_back_into_it() {
    let bench = Bench::new().await;
    let store = &bench.store;
    bench.write("delete from outbox", &[]).await;
    bench
        .write(
            "insert into outbox (id, message) values (gen_random_uuid(), '{\"of\": \"a later version\"}')",
            &[],
        )
        .await;
    store
        .take_messages(10)
        .await
        .unwrap()
        .published(&[])
        .await
        .unwrap();
    let letter = store.dead_letters(None, 10).await.unwrap().pop().unwrap();
    assert_eq!(letter.subject, "outbox");
    assert!(store.retry_dead_letter(letter.id).await.unwrap());
    assert!(store.take_retried_letter().await.unwrap().is_none());
    assert!(store.dead_letters(None, 10).await.unwrap().is_empty());
    let batch = store.take_messages(10).await.unwrap();
    assert_eq!(
        batch.unreadable.len(),
        1,
        "this version still can't read it"
    );
}

#[tokio::test]
async fn a_pool_without_a_free_connection_and_a_killed_one_may_be_tried_again() {
    let bench = Bench::new().await;
    let mut small = ConnectConfig::new(bench.database.url(), "small");
    small.max_connections = 1;
    small.acquire_timeout = Duration::from_millis(300);
    let store = Store::connect(&small, bench.store.seal_key().clone())
        .await
        .unwrap();
    let listener = store.listen(&["anything"]).await.unwrap();
    let waited = store.ping().await.unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::Retry, "{waited:?}");
    drop(listener);
    testkit::wait::until(TTL, "the connection is free again", async || {
        Ok(store.ping().await.is_ok())
    })
    .await
    .unwrap();
    bench
        .write(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'small'",
            &[],
        )
        .await;
    if let Err(error) = store.ping().await {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    }
    store.ping().await.expect("a connection of its own making");
}
