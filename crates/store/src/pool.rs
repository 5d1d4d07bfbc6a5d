//! The connection pool, and the migration of the schema to this version.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domain::TenantId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgPool, Postgres};

use crate::page::PageEnds;
use crate::{SealKey, StoreError, Transaction};

/// Connections reserved for the renewal of leases, so that a worker whose other connections are in use or hang keeps
/// its runs. One is for a renewal, and one for the next if the first hangs.
const LEASE_CONNECTIONS: u32 = 2;

/// Idle time after which a connection is checked before its use.
const ASKED_AFTER: Duration = Duration::from_secs(1);

/// Time for which [`Store::takes_writes`] relies on its last successful write.
const WRITES_TRUSTED_FOR: Duration = Duration::from_secs(10);

/// Settings of the connections to Postgres.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// URL of the form `postgres://user:password@host:port/database`.
    pub url: String,
    /// Name shown in `pg_stat_activity`, such as `wherry gateway`.
    pub application_name: String,
    /// Maximum number of connections of this process for work on all tenants.
    pub max_connections: u32,
    /// Maximum number of connections for calls of tenants; none is opened before it is needed.
    pub tenant_connections: u32,
    /// Longest wait for a free or new connection.
    pub acquire_timeout: Duration,
    /// Longest run of one statement; Postgres then ends the statement.
    pub statement_timeout: Duration,
    /// Longest run of one statement in calls of tenants.
    pub tenant_statement_timeout: Duration,
    /// Longest wait of a statement for a row that another transaction holds.
    pub lock_timeout: Duration,
}

impl ConnectConfig {
    /// Returns the defaults: 10 connections of each kind, 5 s for a connection, 10 s for a statement and for a lock.
    pub fn new(url: impl Into<String>, application_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            application_name: application_name.into(),
            max_connections: 10,
            tenant_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            tenant_statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

/// The database: a cheap handle to a pool of connections, and the key for sealed secrets.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    /// Connections that see one tenant's rows at a time.
    tenants: PgPool,
    /// Connections for renewals only; none is opened before it is needed.
    pub(crate) leases: PgPool,
    pub(crate) seal: SealKey,
    pub(crate) page_ends: PageEnds,
    /// Time of the last successful write of [`Store::takes_writes`].
    written_at: Arc<Mutex<Option<Instant>>>,
}

/// Open connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Connections in use now.
    pub used: u32,
    /// Open connections that are free.
    pub idle: u32,
}

impl Store {
    /// Connects once, so that a wrong address is found at the start.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`] and [`StoreError::Connect`].
    pub async fn connect(config: &ConnectConfig, seal: SealKey) -> Result<Self, StoreError> {
        let for_all = options(config, config.statement_timeout)?;
        let for_tenants = options(config, config.tenant_statement_timeout)?;
        let address = address(&for_all);
        let pool = pool_options()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .connect_with(for_all.clone())
            .await
            .map_err(|source| StoreError::Connect { address, source })?;
        let leases = pool_options()
            .max_connections(LEASE_CONNECTIONS)
            .acquire_timeout(config.acquire_timeout)
            .connect_lazy_with(for_all);
        let tenants = pool_options()
            .max_connections(config.tenant_connections)
            .acquire_timeout(config.acquire_timeout)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query!("set role wherry_tenant")
                        .execute(connection)
                        .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(for_tenants);
        Ok(Self {
            pool,
            tenants,
            leases,
            seal,
            page_ends: PageEnds::default(),
            written_at: Arc::default(),
        })
    }

    /// Returns a connection that sees this tenant's rows and no others. It backs up the tenant condition in every
    /// statement of a call.
    pub(crate) async fn connection_as(
        &self,
        tenant: &TenantId,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        self.set_up_for(tenant, "auto").await
    }

    /// Returns a connection like [`Store::connection_as`], for a statement with optional filters. The statement is
    /// planned for its values each time, since it finds its index only then.
    pub(crate) async fn planning_connection_as(
        &self,
        tenant: &TenantId,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        self.set_up_for(tenant, "force_custom_plan").await
    }

    async fn set_up_for(
        &self,
        tenant: &TenantId,
        plan_cache_mode: &str,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        let mut connection = self.tenants.acquire().await?;
        sqlx::query!(
            "select set_config('wherry.tenant', $1, false) as tenant, set_config('plan_cache_mode', $2, false) as plans",
            tenant.as_str(),
            plan_cache_mode
        )
        .fetch_one(&mut *connection)
        .await?;
        Ok(connection)
    }

    /// Begins a transaction like a connection of [`Store::connection_as`].
    pub(crate) async fn begin_as(
        &self,
        tenant: &TenantId,
    ) -> Result<Transaction<'static>, StoreError> {
        let mut transaction = self.tenants.begin().await?;
        sqlx::query!(
            "select set_config('wherry.tenant', $1, true)",
            tenant.as_str()
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok(transaction)
    }

    /// Checks that Postgres answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("select 1 as one")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Makes sure that Postgres answers and, unless that was found out in the last ten seconds, that it takes writes: a
    /// file must grow and a commit be durable, which a full disk and a read-only server refuse.
    ///
    /// # Errors
    /// It does not.
    pub async fn takes_writes(&self) -> Result<(), StoreError> {
        let is_trusted = {
            let written_at = self
                .written_at
                .lock()
                .expect("no holder of this lock can panic");
            written_at.is_some_and(|at| at.elapsed() < WRITES_TRUSTED_FOR)
        };
        if is_trusted {
            return self.ping().await;
        }
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("set local lock_timeout = '1s'")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("truncate write_probe")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "insert into write_probe select repeat('wherry', 300) from generate_series(1, 32)"
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let now = Some(Instant::now());
        *self
            .written_at
            .lock()
            .expect("no holder of this lock can panic") = now;
        Ok(())
    }

    /// Returns a connection that receives the notifications of `channels`: those of [`crate::outbox`] and
    /// [`crate::job`].
    pub async fn listen(&self, channels: &[&str]) -> Result<Listener, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(Listener(listener))
    }

    /// Returns the numbers of used and idle connections.
    pub fn connections(&self) -> Connections {
        let pools = [&self.pool, &self.tenants, &self.leases];
        let all: u32 = pools.iter().map(|pool| pool.size()).sum();
        let idle: usize = pools.iter().map(|pool| pool.num_idle()).sum();
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(all);
        Connections {
            used: all - idle,
            idle,
        }
    }

    /// Returns the key for sealed secrets.
    pub fn seal_key(&self) -> &SealKey {
        &self.seal
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.tenants.close().await;
        self.leases.close().await;
        self.pool.close().await;
    }
}

/// Migrates the schema to this version. Several processes may call this at once: one migrates, the others wait.
///
/// # Errors
/// [`StoreError::InvalidUrl`], [`StoreError::Connect`] and [`StoreError::Migrate`].
pub async fn migrate(config: &ConnectConfig) -> Result<(), StoreError> {
    // A migration may run longer than a statement of a service.
    let unhurried = ConnectConfig {
        lock_timeout: Duration::ZERO,
        ..config.clone()
    };
    let options = options(&unhurried, Duration::ZERO)?;
    let address = address(&options);
    let mut connection = options
        .connect()
        .await
        .map_err(|source| StoreError::Connect { address, source })?;
    sqlx::migrate!().run(&mut connection).await?;
    Ok(())
}

/// Returns the options of a pool. A recently used connection is reused without a check, because a check costs each call
/// a round trip.
fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new()
        .test_before_acquire(false)
        .before_acquire(|connection, used| {
            Box::pin(async move {
                if used.idle_for >= ASKED_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

fn options(
    config: &ConnectConfig,
    statement_timeout: Duration,
) -> Result<PgConnectOptions, StoreError> {
    let statement_timeout = statement_timeout.as_millis().to_string();
    let lock_timeout = config.lock_timeout.as_millis().to_string();
    Ok(PgConnectOptions::from_str(&config.url)
        .map_err(StoreError::InvalidUrl)?
        .application_name(&config.application_name)
        .options([
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", lock_timeout.as_str()),
            // On an SSD, random pages are as near as sequential ones. With its default cost, made for spinning disks,
            // the planner would read a whole table instead of an index that covers a list.
            ("random_page_cost", "1.1"),
        ]))
}

fn address(options: &PgConnectOptions) -> String {
    format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    )
}

/// Receives notifications of Postgres.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Returns the channel of the next notification. `None` if the connection was lost and is restored.
    ///
    /// # Errors
    /// The connection can't be restored.
    pub async fn next_channel(&mut self) -> Result<Option<String>, StoreError> {
        let heard = self.0.try_recv().await?;
        Ok(heard.map(|notification| notification.channel().to_owned()))
    }
}
