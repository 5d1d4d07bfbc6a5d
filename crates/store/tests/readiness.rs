//! Readiness against a real Postgres: a server that answers may still refuse every write.

use testkit::Database;
use testkit::cluster::SmallStore;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_server_with_a_full_disk_or_that_is_read_only_does_not_take_writes() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let disk = SmallStore::over(directory.path(), 512 * MIB)?;
    let database = Database::in_directory(directory.path()).await?;
    // Each store trusts a write for a while, so each look is that of another process.
    let takes_writes = async || database.store().await.takes_writes().await;
    takes_writes().await?;

    disk.fill(0)?;
    let refused = takes_writes().await.expect_err("a file can't grow");
    let cause = format!("{:#}", anyhow::Error::from(refused));
    anyhow::ensure!(cause.contains("No space left"), "{cause}");
    disk.empty()?;
    takes_writes().await?;

    let pool = database.pool().await;
    sqlx::raw_sql("alter role wherry set default_transaction_read_only = on")
        .execute(&pool)
        .await?;
    let refused = takes_writes()
        .await
        .expect_err("every transaction is read-only");
    let cause = format!("{:#}", anyhow::Error::from(refused));
    anyhow::ensure!(cause.contains("read-only"), "{cause}");
    pool.close().await;
    drop(database);
    Ok(())
}
