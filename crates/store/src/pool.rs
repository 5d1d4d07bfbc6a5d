//! The connection pool, and bringing the schema to this version.

use std::str::FromStr as _;
use std::time::Duration;

use domain::TenantId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgPool, Postgres};

use crate::page::PageEnds;
use crate::{SealKey, StoreError, Transaction};

/// Connections that are kept for the renewal of leases, so that a worker whose other connections are all in use, or hang, does not lose its
/// runs: one for a renewal, and one for the next when the first hangs.
const LEASE_CONNECTIONS: u32 = 2;

/// A connection that was idle for so long is asked whether it is alive before it is used.
const ASKED_AFTER: Duration = Duration::from_secs(1);

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Shown in `pg_stat_activity`, such as `wherry gateway`.
    pub application_name: String,
    /// Most connections of this process for what concerns all tenants.
    pub max_connections: u32,
    /// Most connections for calls of tenants; none is opened before there is one.
    pub tenant_connections: u32,
    /// Longest wait for a free or new connection.
    pub acquire_timeout: Duration,
    /// Longest run of one statement; Postgres ends it then.
    pub statement_timeout: Duration,
    /// The same for calls of tenants.
    pub tenant_statement_timeout: Duration,
    /// Longest wait of a statement for a row that another one holds.
    pub lock_timeout: Duration,
}

impl ConnectConfig {
    /// The defaults: 10 connections of each kind, 5 s for a connection, 10 s for a statement
    /// and for a lock.
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
    /// Connections for renewals only; none is opened before there is one.
    pub(crate) leases: PgPool,
    pub(crate) seal: SealKey,
    pub(crate) page_ends: PageEnds,
}

/// Open connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// In use now.
    pub used: u32,
    /// Open, and free.
    pub idle: u32,
}

impl Store {
    /// Connects once, so that a wrong address is known at the start.
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
        })
    }

    /// A connection that sees this tenant's rows and no others: what stands behind the tenant in every statement of a call.
    pub(crate) async fn connection_as(
        &self,
        tenant: &TenantId,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        self.set_up_for(tenant, "auto").await
    }

    /// The same for a statement with filters that may be absent: it is planned for its values each time, since it finds its index only so.
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

    /// A transaction of [`Store::connection_as`].
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

    /// Asks Postgres for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("select 1 as one")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// A connection that is told when one of `channels` is notified: the ones of [`crate::outbox`] and [`crate::job`].
    pub async fn listen(&self, channels: &[&str]) -> Result<Listener, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(Listener(listener))
    }

    /// How many connections are used and how many are idle.
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

    /// The key for sealed secrets.
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

/// Brings the schema to this version. Safe to call from several processes at once: one migrates, the others wait.
///
/// # Errors
/// [`StoreError::InvalidUrl`], [`StoreError::Connect`] and [`StoreError::Migrate`].
pub async fn migrate(config: &ConnectConfig) -> Result<(), StoreError> {
    // A migration may well run longer than a statement of a service may.
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

/// A connection that was used a moment ago is used again without asking whether it is alive: that is a round trip for each call.
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
            // Any page of an SSD is as near as the next one. With the planner's own figure, of a disk with arms, it would rather read a
            // table from end to end than an index that has all that a list asks for.
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

/// Hears what Postgres is told to pass on.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// The channel of the next notification; `None` when the connection was lost and has been made again.
    ///
    /// # Errors
    /// The connection can't be made again.
    pub async fn next_channel(&mut self) -> Result<Option<String>, StoreError> {
        let heard = self.0.try_recv().await?;
        Ok(heard.map(|notification| notification.channel().to_owned()))
    }
}
