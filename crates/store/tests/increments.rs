//! Jobs that deliver repeatedly, against a real Postgres: the timer of the next run, the images that are kept, the
//! cut-over.

use std::time::Duration;

use domain::job::{Event, State};
use domain::message::{Command, Message, TraceHeaders};
use domain::{ImageId, JobId, SourceId, TenantId};
use sqlx::PgPool;
use store::job::increments::CutOver;
use store::job::modify::{JobChange, ModifyJob};
use store::job::{Change, Guard, Transitioned};
use store::lease::{Claim, Lease};
use store::timer::TimerKind;
use store::{Page, Store};

struct World {
    store: Store,
    pool: PgPool,
    tenant: TenantId,
    job: JobId,
    _database: testkit::Database,
}

impl World {
    /// A tenant with a source and a job that delivers every two hours and keeps two images.
    async fn new() -> Self {
        let database = testkit::postgres().await;
        let world = Self {
            store: database.store().await,
            pool: database.pool().await,
            tenant: TenantId::generate(),
            job: JobId::generate(),
            _database: database,
        };
        let source = SourceId::generate();
        for statement in [
            "insert into tenant (id, name) values ($1, $1)",
            "insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform)
             values ($2, $1, 'web', '', 'key', '1', 'x86_64', 'Linux')",
            "insert into job (id, tenant, source_id, region_id, name, image_name, valid_until, frequency_hours, images_to_keep)
             values ($3, $1, $2, 'r', 'job', 'web', now() + interval '30 days', 2, 2)",
        ] {
            // Each statement leaves out the parameters that it does not need, but Postgres requires their types.
            let typed = format!("with given as (select $1::text, $2::text, $3::text) {statement}");
            sqlx::query(sqlx::AssertSqlSafe(typed))
                .bind(world.tenant.as_str())
                .bind(source.as_str())
                .bind(world.job.as_str())
                .execute(&world.pool)
                .await
                .unwrap();
        }
        world
    }

    async fn send(&self, event: Event, guard: Guard<'_>) -> Transitioned {
        let change = Change {
            event,
            guard,
            actor: "test",
            detail: "",
            failure: None,
            headers: &TraceHeaders::new(),
        };
        self.store.transition(&self.job, change).await.unwrap()
    }

    async fn write(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }

    async fn read(&self, query: &'static str) -> String {
        sqlx::query_scalar::<_, Option<String>>(query)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
            .flatten()
            .unwrap_or_default()
    }

    async fn state(&self) -> String {
        self.read("select state from job").await
    }

    /// Gives the started job a slot and a worker, and delivers an image.
    async fn deliver(&self) -> ImageId {
        assert_eq!(self.store.admit_round(10).await.unwrap().len(), 1);
        let ttl = Duration::from_secs(30);
        let claimed = self.store.claim_run(&self.job, "w", ttl).await.unwrap();
        let Claim::Granted(lease) = claimed else {
            panic!("{claimed:?}")
        };
        let guard = Guard::Lease(lease.epoch);
        self.send(Event::Prepared, guard).await;
        self.send(Event::Synced, guard).await;
        let image = self.image(&lease).await;
        self.send(Event::Processed, guard).await;
        let facts = self.store.run_facts(&self.job).await.unwrap().unwrap();
        let end = if facts.rests {
            Event::Rest
        } else {
            Event::Finish
        };
        let moved = self.send(end, guard).await;
        assert!(matches!(moved, Transitioned::Moved(_)), "{moved:?}");
        self.store
            .release_lease(&self.job, lease.epoch)
            .await
            .unwrap();
        image
    }

    async fn image(&self, lease: &Lease) -> ImageId {
        let candidate = ImageId::generate();
        let begun = self
            .store
            .begin_image(&self.job, lease.epoch, &candidate)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(begun.name, format!("web_CYCLE_{}", lease.run));
        let description = serde_json::json!({});
        assert!(
            self.store
                .finish_image(&begun.id, lease.epoch, "/images", &description, 0)
                .await
                .unwrap()
        );
        begun.id
    }

    /// The available images, oldest first.
    async fn images(&self) -> Vec<String> {
        sqlx::query_scalar("select id from image where state = 'available' order by run")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn modify(&self, frequency: Option<i32>, keep: Option<i32>) -> ModifyJob {
        let change = JobChange {
            frequency_hours: frequency,
            images_to_keep: keep,
            ..JobChange::default()
        };
        self.store
            .modify_job(&self.tenant, &self.job, &change)
            .await
            .unwrap()
    }

    async fn cut_over(&self, sync_data: bool) -> CutOver {
        self.store
            .cut_over_job(&self.tenant, &self.job, sync_data, &TraceHeaders::new())
            .await
            .unwrap()
    }

    /// Seconds from the last start to the next.
    async fn interval(&self) -> String {
        self.read(
            "select extract(epoch from due_at - job.started_at)::bigint::text
             from timer join job on job.id = timer.job_id where kind = 'run'",
        )
        .await
    }
}

#[tokio::test]
async fn a_delivered_run_waits_for_its_timer_which_starts_the_next() {
    let world = World::new().await;
    world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
    let first = world.deliver().await;
    assert_eq!(world.state().await, "waiting");
    assert_eq!(world.interval().await, "7200");
    assert_eq!(world.store.fire_next_timer().await.unwrap(), None);

    world
        .write("update timer set due_at = now() - interval '1 minute' where kind = 'run'")
        .await;
    // A silent source delays the run, and the tenant sees the reason.
    world
        .write("update source set last_seen_at = now() - interval '1 hour'")
        .await;
    let fired = world.store.fire_next_timer().await.unwrap().unwrap();
    assert_eq!((fired.kind, fired.transitioned), (TimerKind::Run, None));
    assert_eq!(world.state().await, "waiting");
    assert_eq!(
        world.read("select failure_code from job").await,
        "SourceServer.Offline"
    );
    world.write("update source set last_seen_at = now()").await;
    world
        .write("update timer set due_at = now() where kind = 'run'")
        .await;
    let fired = world.store.fire_next_timer().await.unwrap().unwrap();
    assert!(matches!(fired.transitioned, Some(Transitioned::Moved(_))));
    assert_eq!(world.state().await, "preparing");
    assert_eq!(world.read("select failure_code from job").await, "");
    let timers = world.read("select string_agg(kind, ',') from timer").await;
    assert_eq!(timers, "", "a running job has no next run");

    let second = world.deliver().await;
    let filter = store::job::describe::JobFilter::default();
    let page = Page { number: 1, size: 1 };
    let listed = world
        .store
        .jobs(&world.tenant, &filter, page)
        .await
        .unwrap();
    let runs = &listed.rows[0].runs;
    let kinds: Vec<_> = runs.iter().map(|run| run.kind).collect();
    use store::job::runs::RunKind;
    assert_eq!(kinds, [RunKind::Manual, RunKind::Schedule]);
    let images: Vec<_> = runs.iter().map(|run| run.image_id.clone()).collect();
    assert_eq!(images, [Some(first), Some(second)]);
    assert!(runs.iter().all(|run| run.ended_at.is_some()));
    assert_eq!(listed.rows[0].furthest, State::Waiting);
}

#[tokio::test]
async fn no_more_images_stay_than_the_job_keeps() {
    let world = World::new().await;
    let mut delivered = Vec::new();
    for _ in 0..3 {
        world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
        delivered.push(world.deliver().await);
    }
    let text: Vec<String> = delivered.iter().map(ToString::to_string).collect();
    assert_eq!(world.images().await, text[1..]);
    let removals: Vec<serde_json::Value> =
        sqlx::query_scalar("select message from outbox order by created_at, id")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let removals: Vec<Message> = removals
        .into_iter()
        .map(|message| serde_json::from_value(message).unwrap())
        .filter(|message| matches!(message, Message::Command(Command::RemoveImage { .. })))
        .collect();
    let image_id = delivered[0].clone();
    assert_eq!(
        removals,
        [Message::Command(Command::RemoveImage { image_id })]
    );

    // A smaller number of images and a longer interval apply at once.
    assert_eq!(world.modify(Some(5), Some(1)).await, ModifyJob::Modified);
    assert_eq!(world.images().await, text[2..]);
    assert_eq!(world.interval().await, "18000");
    world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
    let refused = world.modify(Some(6), None).await;
    let ModifyJob::Refused { allowed, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(allowed, [State::Ready, State::Waiting]);
}

#[tokio::test]
async fn a_stopped_or_expired_job_has_no_next_run() {
    let world = World::new().await;
    world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
    world.deliver().await;
    let stopped = world.send(Event::Stop, Guard::Tenant(&world.tenant)).await;
    assert!(matches!(stopped, Transitioned::Moved(_)), "{stopped:?}");
    assert_eq!(world.state().await, "stopped");
    assert_eq!(world.interval().await, "");

    world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
    world.deliver().await;
    assert_eq!(world.interval().await, "7200");
    // A next run that is due after the end of the validity never starts.
    world
        .write("update job set valid_until = now() - interval '1 second'")
        .await;
    world.write("update timer set due_at = now()").await;
    assert_eq!(world.store.fire_next_timer().await.unwrap(), None);
    let expired = world.send(Event::Expire, Guard::Unleased).await;
    assert!(matches!(expired, Transitioned::Moved(_)), "{expired:?}");
    assert_eq!(
        world.read("select string_agg(kind, ',') from timer").await,
        "purge"
    );
}

#[tokio::test]
async fn a_cut_over_finishes_a_waiting_job_at_once_or_after_one_more_run() {
    let world = World::new().await;
    assert_eq!(world.cut_over(false).await, CutOver::Refused(State::Ready));
    world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
    assert_eq!(
        world.cut_over(true).await,
        CutOver::Refused(State::Preparing)
    );
    world.deliver().await;
    let stranger = TenantId::generate();
    let foreign = world
        .store
        .cut_over_job(&stranger, &world.job, false, &TraceHeaders::new())
        .await
        .unwrap();
    assert_eq!(foreign, CutOver::NotFound);

    world
        .write("update source set last_seen_at = now() - interval '1 hour'")
        .await;
    let refused = world.cut_over(true).await;
    assert!(matches!(refused, CutOver::Source(_)), "{refused:?}");
    assert_eq!(
        world.state().await,
        "waiting",
        "a refused call changes nothing"
    );
    assert_eq!(world.read("select cut_over::text from job").await, "false");
    world.write("update source set last_seen_at = now()").await;
    assert_eq!(world.cut_over(true).await, CutOver::Done);
    assert_eq!(world.state().await, "preparing");
    world.deliver().await;
    assert_eq!(world.state().await, "finished");
    assert_eq!(
        world.read("select string_agg(kind, ',') from timer").await,
        ""
    );

    let world = World::new().await;
    world.send(Event::Start, Guard::Tenant(&world.tenant)).await;
    world.deliver().await;
    let ended = world.read("select ended_at::text from job").await;
    assert_eq!(world.cut_over(false).await, CutOver::Done);
    assert_eq!(world.state().await, "finished");
    assert_eq!(world.read("select ended_at::text from job").await, ended);
    assert_eq!(world.read("select max(run)::text from job").await, "1");
    assert_eq!(
        world.cut_over(false).await,
        CutOver::Refused(State::Finished)
    );
}

#[tokio::test]
async fn a_job_that_delivers_once_has_nothing_to_repeat() {
    let world = World::new().await;
    world
        .write("update job set frequency_hours = null, images_to_keep = null")
        .await;
    assert_eq!(world.modify(Some(1), None).await, ModifyJob::DeliversOnce);
    let facts = world.store.run_facts(&world.job).await.unwrap().unwrap();
    assert!(!facts.rests);
}
