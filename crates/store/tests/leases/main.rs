//! Leases, and the writes of their holders, against a real Postgres.

mod bytes;
mod images;
mod ownership;
mod removal;
mod trouble;

use std::time::Duration;

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::status_info::StatusInfo;
use domain::{Failure, FailureCode, InstanceId, JobId, SourceId, TenantId};
use sqlx::PgPool;
use store::Store;
use store::instance::{Authority, Instance};
use store::job::{Change, Guard, Transitioned};
use store::lease::{Claim, Lease};
use store::run::Observation;

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

    /// Lets time pass until every lease has run out.
    async fn leases_run_out(&self) {
        self.write("update job_lease set expires_at = now()", &[])
            .await;
    }

    /// Loses the worker: its lease runs out, the sweeper removes the lease, and another worker claims.
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

    /// Ends the run on request, and releases it.
    async fn halt(&self, lease: &Lease) {
        self.report(lease, Event::Halted).await;
        self.store
            .release_lease(&self.job, lease.epoch)
            .await
            .unwrap();
    }

    async fn report(&self, lease: &Lease, event: Event) -> Transitioned {
        self.send(event, Guard::Lease(lease.epoch)).await
    }

    /// Advances the lease holder through the phases up to `state`.
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
            is_first,
            ..Observation::default()
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
