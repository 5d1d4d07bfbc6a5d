//! A Postgres data directory with the schema of this checkout, made once and copied for each test process.
//!
//! The directory lies in the target folder under a name that depends on the migrations that made it. A process that
//! finds none makes one under an exclusive lock, and others wait. A process that copies it holds a shared lock.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use servers::{Durability, Postgres};
use store::ConnectConfig;

/// The database with the schema; tests get copies of it.
pub(crate) const DATABASE: &str = "wherry";

/// Puts a copy of the template into `dir`, ready for [`Postgres::start`].
pub(crate) async fn copy_to(dir: &Path) -> Result<()> {
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    let made = folder.join("made");
    lock.lock_shared()?;
    if !made.is_file() {
        lock.unlock()?;
        lock.lock()?;
        // Another process may have been quicker.
        if !made.is_file() {
            make(&folder)
                .await
                .with_context(|| format!("make the template in {}", folder.display()))?;
            File::create(&made)?;
        }
    }
    copy(&folder.join("postgres"), dir)
}

async fn make(folder: &Path) -> Result<()> {
    let dir = folder.join("postgres");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    remove_others(folder)?;
    let postgres = Postgres::start(&dir, Durability::Test).await?;
    store::migrate(&ConnectConfig::new(postgres.url_of(DATABASE), "testkit")).await?;
    postgres.stop().await;
    Ok(())
}

/// Templates of other schemas would pile up with every change of a migration. One that is being copied is left alone.
fn remove_others(folder: &Path) -> Result<()> {
    let all = folder
        .parent()
        .context("a template lies in the folder of all templates")?;
    for entry in fs::read_dir(all)? {
        let other = entry?.path();
        let unused = File::open(other.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if other != folder && unused {
            // Another process may be removing it as well.
            let _ = fs::remove_dir_all(&other);
        }
    }
    Ok(())
}

/// `target/testkit/<schema>` of the target folder that this test was built in.
fn folder() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(std::env::temp_dir, Path::to_owned);
    Ok(target.join("testkit").join(schema()?))
}

/// Names the schema by the contents of the migrations.
fn schema() -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/migrations");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    // Another server version cannot read the data.
    std::env::var_os("WHERRY_PG_BIN").hash(&mut hasher);
    Ok(format!("postgres-{:016x}", hasher.finish()))
}

/// Copies a directory; its folders are readable by this user only, as PostgreSQL demands.
fn copy(from: &Path, to: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
