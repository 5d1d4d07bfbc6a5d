//! Trouble that a cluster's servers can make, and what only its database shows.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection as _, PgConnection};

use super::{Cluster, READY_TIMEOUT};
use crate::wait;

impl Cluster {
    /// Lets Postgres drop every connection and come up again, with what was committed.
    pub async fn restart_postgres(&self) -> anyhow::Result<()> {
        let before = self.postgres.pid().context("Postgres runs")?;
        // Its fast shutdown: transactions under way are rolled back.
        kill(Pid::from_raw(i32::try_from(before)?), Signal::SIGINT)?;
        wait::until(READY_TIMEOUT, "Postgres is back", async || {
            let is_new = self.postgres.pid().is_some_and(|pid| pid != before);
            Ok(is_new && PgConnection::connect(&self.postgres.url()).await.is_ok())
        })
        .await
    }

    /// Pauses Postgres, the processes of its connections first, until what is returned is dropped.
    pub fn pause_postgres(&self) -> anyhow::Result<Paused> {
        let first = self.postgres.pid().context("Postgres runs")?;
        let listed = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        let mut paused = Paused(Vec::new());
        for pid in listed
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .chain([i32::try_from(first)?])
        {
            paused.stop(pid)?;
        }
        Ok(paused)
    }

    /// The same of NATS.
    pub fn pause_nats(&self) -> anyhow::Result<Paused> {
        let mut paused = Paused(Vec::new());
        let pid = self.nats.pid().context("NATS runs")?;
        paused.stop(i32::try_from(pid)?)?;
        Ok(paused)
    }

    /// Holds the rows of all jobs locked for so long.
    pub async fn lock_jobs(&self, time: Duration) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.postgres.url()).await?;
        let mut locked = connection.begin().await?;
        sqlx::query("select from job for update")
            .execute(&mut *locked)
            .await?;
        tokio::time::sleep(time).await;
        locked.rollback().await?;
        Ok(())
    }

    /// Forgets a disk of a source, as a heartbeat does whose agent finds it no more.
    pub async fn forget_disk(&self, source_id: &str, index: i16) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.postgres.url()).await?;
        sqlx::query("delete from source_disk where source_id = $1 and index = $2")
            .bind(source_id)
            .bind(index)
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Size of a source's disk in bytes, as its agent reported it.
    pub async fn disk_bytes(&self, source_id: &str, index: i16) -> anyhow::Result<Option<i64>> {
        let mut connection = PgConnection::connect(&self.postgres.url()).await?;
        let known = sqlx::query_scalar(
            "select size_bytes from source_disk where source_id = $1 and index = $2",
        )
        .bind(source_id)
        .bind(index)
        .fetch_optional(&mut connection)
        .await?;
        Ok(known)
    }

    /// Returns the text that a role serves at `/readyz`.
    pub async fn readiness(&self, name: &str) -> anyhow::Result<String> {
        let url = format!("http://{}/readyz", self.metrics_address(name));
        Ok(reqwest::get(url).await?.text().await?)
    }
}

/// Processes that are paused. They go on when it is dropped.
#[derive(Debug)]
pub struct Paused(Vec<Pid>);

impl Paused {
    fn stop(&mut self, pid: i32) -> anyhow::Result<()> {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP)?;
        self.0.push(pid);
        Ok(())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for &pid in self.0.iter().rev() {
            let _ended_meanwhile = kill(pid, Signal::SIGCONT);
        }
    }
}
