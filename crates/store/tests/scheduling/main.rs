//! The scheduler's work in the database, against a real Postgres: slots, timers, lost leases, messages.

mod admission;
mod losses;
mod places;
mod relay;
mod timers;

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

    /// A job in Ready, of a source of its own whose agent reported just now.
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

    /// Returns every message of the outbox, and empties it.
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
