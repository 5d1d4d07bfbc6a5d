//! A migrated database of its own for each test.
//!
//! Each test process has a server of its own. The server starts from a copied data directory in a fraction of a second.
//! It dies with the process, so a test may also kill it. Tests that run as threads of one process share the server, and
//! each still has its own database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};
use servers::{Durability, Postgres};
use sqlx::{Connection, PgConnection, PgPool};
use store::{ConnectConfig, SealKey, Store};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::template;

static SERVER: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

/// The server of this test process. The last database of the process stops it and removes its data.
#[derive(Debug)]
struct Server {
    // Stops before its directory goes.
    postgres: Postgres,
    _dir: TempDir,
}

impl Server {
    async fn start(dir: TempDir) -> Result<Self> {
        let data: PathBuf = dir.path().join("server");
        template::copy_to(&data).await?;
        let postgres = Postgres::start(&data, Durability::Test).await?;
        Ok(Self {
            postgres,
            _dir: dir,
        })
    }
}

/// A database with the current schema and nothing in it.
#[derive(Debug, Clone)]
pub struct Database {
    server: Arc<Server>,
    name: String,
}

/// A new database with the current schema.
///
/// # Panics
/// There is no PostgreSQL, or it does not start.
pub async fn postgres() -> Database {
    let created = async { Database::create(server().await?).await };
    match created.await {
        Ok(database) => database,
        Err(error) => panic!("no database for the test: {error:?}"),
    }
}

impl Database {
    /// A new database on a server of its own, whose files lie in this directory.
    ///
    /// # Errors
    /// There is no PostgreSQL, or it does not start.
    pub async fn in_directory(directory: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(directory)?;
        Self::create(Arc::new(Server::start(dir).await?)).await
    }

    async fn create(server: Arc<Server>) -> Result<Self> {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&server.postgres.url_of("postgres")).await?;
        let statement = format!("create database {name} template {}", template::DATABASE);
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .context("copy the template database")?;
        Ok(Self { server, name })
    }

    /// Its address, with the password.
    pub fn url(&self) -> String {
        self.server.postgres.url_of(&self.name)
    }

    /// The server, for tests that end or pause it.
    pub fn server(&self) -> &Postgres {
        &self.server.postgres
    }

    /// Returns a separate pool of connections, for reads and writes that bypass the store.
    ///
    /// # Panics
    /// The server does not take connections.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url())
            .await
            .expect("the server of this test takes connections")
    }

    /// A store over it, with a seal key of its own.
    ///
    /// # Panics
    /// The server does not take connections.
    pub async fn store(&self) -> Store {
        let seal =
            SealKey::from_hex(&SealKey::generate_hex()).expect("a generated key is well formed");
        Store::connect(&ConnectConfig::new(self.url(), "test"), seal)
            .await
            .expect("the server of this test takes connections")
    }
}

async fn server() -> Result<Arc<Server>> {
    let mut current = SERVER.lock().await;
    if let Some(server) = current.upgrade() {
        return Ok(server);
    }
    let dir = tempfile::Builder::new()
        .prefix("wherry-postgres-")
        .tempdir()?;
    let server = Arc::new(Server::start(dir).await?);
    *current = Arc::downgrade(&server);
    Ok(server)
}
