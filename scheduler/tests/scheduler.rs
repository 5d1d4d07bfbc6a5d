//! A whole scheduler against a real Postgres and a real NATS: the jobs that it starts, and the failures that it
//! survives.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, BusConfig, Commands, Received};
use domain::message::Command;
use domain::{JobId, SourceId, TenantId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler::Config;
use service::Shutdown;
use sqlx::PgPool;
use store::SealKey;
use testkit::{Database, TestNats, wait};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

struct World {
    pool: PgPool,
    shutdown: Shutdown,
    schedulers: Vec<JoinHandle<Result<(), scheduler::Error>>>,
    bus: Bus,
    nats: TestNats,
    _database: Database,
}

impl World {
    async fn with_schedulers(count: usize) -> anyhow::Result<Self> {
        let (database, nats) = (testkit::postgres().await, testkit::nats().await);
        let shutdown = Shutdown::new();
        let config = Config {
            database_url: database.url().into(),
            nats_url: nats.url().into(),
            seal_key: SealKey::from_hex(&"0".repeat(64))?,
            statement_timeout_secs: 10,
            nats_timeout_secs: 5,
            health: None,
            admission_window: 32,
            place_secs: 600,
            poll_secs: 1,
            sweep_secs: 1,
            reconcile_secs: 1,
            relay_batch: 100,
            drain_secs: 10,
            readiness: service::Readiness::default(),
        };
        let schedulers = (0..count)
            .map(|_| tokio::spawn(scheduler::run(config.clone(), shutdown.child())))
            .collect();
        Ok(Self {
            pool: database.pool().await,
            bus: Bus::connect(&BusConfig::new(nats.url(), "test")).await?,
            shutdown,
            schedulers,
            nats,
            _database: database,
        })
    }

    /// Inserts a job whose scheduled start is due now.
    async fn due_job(&self) -> anyhow::Result<JobId> {
        let (tenant, source) = (TenantId::generate(), SourceId::generate());
        let job_id = JobId::generate();
        let mut transaction = self.pool.begin().await?;
        sqlx::query("insert into tenant (id, name, max_running) values ($1, $1, 10)")
            .bind(tenant.as_str())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform)
             values ($1, $2, $1, '', $1::bytea, '0', '0', '0')",
        )
        .bind(source.as_str())
        .bind(tenant.as_str())
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "insert into job (id, tenant, source_id, region_id, name, image_name, valid_until)
             values ($1, $2, $3, 'local', $1, $1, now() + interval '30 days')",
        )
        .bind(job_id.as_str())
        .bind(tenant.as_str())
        .bind(source.as_str())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("insert into timer (job_id, kind, due_at) values ($1, 'start', now())")
            .bind(job_id.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(job_id)
    }

    async fn count(&self, sql: &'static str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn end(self) -> anyhow::Result<()> {
        self.shutdown.drain();
        for scheduler in self.schedulers {
            tokio::time::timeout(PATIENCE, scheduler)
                .await
                .context("a scheduler drains")???;
        }
        Ok(())
    }
}

/// Returns the next job that a worker is asked to run. The wait includes any recovery of NATS.
async fn next_start(commands: &mut Commands) -> anyhow::Result<JobId> {
    wait::some(PATIENCE, "a worker is asked to run a job", async || {
        for received in commands.next(1, SHORT).await.unwrap_or_default() {
            if let Received::Command(delivery) = received {
                delivery.acknowledge().await?;
                if let Command::StartRun { job_id, .. } = delivery.command {
                    return Ok(Some(job_id));
                }
            }
        }
        Ok(None)
    })
    .await
}

#[tokio::test]
async fn two_schedulers_start_a_scheduled_job_once() -> anyhow::Result<()> {
    let world = World::with_schedulers(2).await?;
    let job_id = world.due_job().await?;
    assert_eq!(next_start(&mut world.bus.commands()).await?, job_id);
    let runs = world.count("select sum(run) from job").await?;
    let admissions = world
        .count("select count(*) from job_event where detail = 'given a slot'")
        .await?;
    assert_eq!((runs, admissions), (1, 1));
    world.end().await
}

#[tokio::test]
async fn a_job_that_delivers_again_starts_when_its_next_run_is_due() -> anyhow::Result<()> {
    let world = World::with_schedulers(2).await?;
    let job_id = world.due_job().await?;
    let mut commands = world.bus.commands();
    assert_eq!(next_start(&mut commands).await?, job_id);
    // The state after the end of a run: the job waits, and its timer is an hour away.
    for statement in [
        "update job set frequency_hours = 1, images_to_keep = 1, state = 'waiting', admitted_at = null, intent = 'rest'",
        "insert into timer (job_id, kind, due_at) select id, 'run', started_at + interval '1 hour' from job",
    ] {
        sqlx::query(statement).execute(&world.pool).await?;
    }
    sqlx::query("update timer set due_at = due_at - interval '1 hour' where kind = 'run'")
        .execute(&world.pool)
        .await?;
    // The reconciler may still repeat the request for the first run; the second run is identified by its number.
    wait::until(PATIENCE, "the second run has its slot", async || {
        let running = "select count(*) from job where run = 2 and admitted_at is not null";
        Ok(world.count(running).await? == 1)
    })
    .await?;
    assert_eq!(next_start(&mut commands).await?, job_id);
    let scheduled = "select count(*) from job_run where kind = 'schedule'";
    assert_eq!(world.count(scheduled).await?, 2);
    let timers = "select count(*) from timer where kind = 'run'";
    assert_eq!(world.count(timers).await?, 0);
    world.end().await
}

#[tokio::test]
async fn a_start_that_was_wiped_with_its_stream_is_asked_for_again() -> anyhow::Result<()> {
    let world = World::with_schedulers(1).await?;
    let job_id = world.due_job().await?;
    wait::until(PATIENCE, "the start is published", async || {
        let admitted = "select count(*) from job where admitted_at is not null";
        let left = "select count(*) from outbox";
        Ok(world.count(admitted).await? == 1 && world.count(left).await? == 0)
    })
    .await?;
    let url: async_nats::ServerAddr = world.nats.url().parse()?;
    let (user, password) = (
        url.username().context("user")?,
        url.password().context("password")?,
    );
    let client = async_nats::ConnectOptions::with_user_and_password(user.into(), password.into())
        .connect(url.clone())
        .await?;
    async_nats::jetstream::new(client)
        .delete_stream("JOB_CMD")
        .await?;
    assert_eq!(next_start(&mut world.bus.commands()).await?, job_id);
    world.end().await
}

#[tokio::test]
async fn messages_wait_while_nats_is_away_and_all_arrive() -> anyhow::Result<()> {
    let world = World::with_schedulers(1).await?;
    let first = world.due_job().await?;
    let mut commands = world.bus.commands();
    assert_eq!(next_start(&mut commands).await?, first);

    let pid = world.nats.server().pid().context("NATS runs")?;
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, Signal::SIGSTOP)?;
    let mut expected = vec![world.due_job().await?, world.due_job().await?];
    wait::until(PATIENCE, "both are admitted without NATS", async || {
        let admitted = "select count(*) from job where admitted_at is not null";
        Ok(world.count(admitted).await? == 3)
    })
    .await?;
    assert!(
        world.count("select count(*) from outbox").await? > 0,
        "what NATS did not take stays"
    );

    // The supervisor starts the scheduler again.
    kill(pid, Signal::SIGKILL)?;
    let mut started = Vec::new();
    while !expected.iter().all(|job_id| started.contains(job_id)) {
        started.push(next_start(&mut commands).await?);
    }
    expected.push(first);
    assert!(started.iter().all(|job_id| expected.contains(job_id)));
    // The reconciler continues to request workers for jobs without a lease, so only older messages must be gone.
    wait::until(PATIENCE, "the outbox drains", async || {
        Ok(world.count("select count(*) from outbox").await? == 0)
    })
    .await?;
    world.end().await
}
