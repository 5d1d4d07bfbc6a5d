//! The tour of the read-me: a source, a job, an image, all with the command line.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::cluster::{Cluster, ClusterConfig, REGION};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");
const MIB: u64 = 1 << 20;

/// The command line of one tenant, whose settings are in a profile.
struct Shell {
    home: PathBuf,
}

impl Shell {
    fn new(home: &Path, endpoint: &str, id: &str, secret: &str) -> anyhow::Result<Self> {
        let folder = home.join(".config/wherry");
        std::fs::create_dir_all(&folder)?;
        let profile = format!(
            "[default]\nendpoint = {endpoint:?}\naccess_key_id = {id:?}\naccess_key_secret = {secret:?}\nregion = {REGION:?}\n"
        );
        std::fs::write(folder.join("profiles.toml"), profile)?;
        Ok(Self {
            home: home.to_owned(),
        })
    }

    fn run(&self, line: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(WHERRY);
        for (name, _) in std::env::vars() {
            if name.starts_with("WHERRY_") || name.starts_with("ALIBABA_CLOUD_") {
                command.env_remove(name);
            }
        }
        Ok(command
            .args(line.split(' '))
            .env("HOME", &self.home)
            .output()?)
    }

    /// What a command that succeeds prints.
    fn says(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "wherry {line}: {}\n{said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn json(&self, line: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(
            &self.says(&format!("{line} --output json"))?,
        )?)
    }

    /// What a command that fails says.
    fn fails(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        ensure!(
            output.status.code() == Some(1),
            "wherry {line} ended with {}",
            output.status
        );
        Ok(String::from_utf8(output.stderr)?)
    }
}

fn has(text: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_migration_by_command_line() -> anyhow::Result<()> {
    let config = ClusterConfig {
        binary: WHERRY.into(),
        workers: 1,
        environment: Vec::new(),
    };
    let cluster = Cluster::start(config).await?;
    let tenant = cluster.tenant("alice").await?;
    let source = tenant.source(&cluster, "web", &[24 * MIB, 8 * MIB]).await?;
    let key = cluster.store.create_access_key(&tenant.id).await?;
    let shell = Shell::new(
        &cluster.path("home"),
        &cluster.endpoint(),
        &key.id,
        &key.secret,
    )?;

    has(
        &shell.says("source list")?,
        &["ID", "DISKS (GiB)", &source.id, "web", "Available"],
    )?;
    has(
        &shell.says("source show web")?,
        &["Id", &source.id, "State", "Available"],
    )?;
    has(
        &shell.fails("job create --source web --system-disk-size 5")?,
        &["request "],
    )?;
    has(
        &shell.says("job create --source web --name first")?,
        &["is created", "wherry job start j-"],
    )?;
    has(&shell.says("job list")?, &["first", "Ready", &source.id])?;
    has(
        &shell.fails("job create --source web --name second")?,
        &["SourceServerState.Invalid", "request "],
    )?;
    has(&shell.says("job start first")?, &["started"])?;
    let watched = shell.says("job watch first")?;
    has(&watched, &["Running/", "is finished. Its image is m-"])?;
    let job = shell.json("job show first")?;
    ensure!(job["Status"] == "Finished", "{job:#}");
    has(
        &shell.says("job explain first")?,
        &["Now:", "Next:", "TIME", "finished"],
    )?;

    let image = job["ImageId"]
        .as_str()
        .context("the job names its image")?
        .to_owned();
    has(&shell.says("image list")?, &[&image, "Available"])?;
    let shown = shell.says(&format!("image show {image}"))?;
    has(
        &shown,
        &[
            "ROOT HASH (BLAKE3)",
            "disk-0.raw",
            "disk-1.qcow2",
            "24.0 MiB",
            "20.0 GiB",
        ],
    )?;
    let verified = shell.says(&format!("image verify {image}"))?;
    ensure!(
        verified.lines().count() == 2,
        "one line for each disk: {verified}"
    );

    exports_go_on(&cluster, &shell, &image)?;
    damage_is_found(&cluster, &shell, &image)?;
    has(
        &shell.says(&format!("image delete {image}"))?,
        &["is being deleted"],
    )?;
    has(&shell.says("job delete first")?, &["being deleted"])
}

/// An export that was cut off anywhere, also at the very end, gives the file whole.
fn exports_go_on(cluster: &Cluster, shell: &Shell, image: &str) -> anyhow::Result<()> {
    let folder = cluster.path("export");
    let line = format!("image export {image} --to {}", folder.display());
    shell.says(&line)?;
    let stored = std::fs::read(cluster.images().join(image).join("disk-0.qcow2"))?;
    let exported = folder.join("disk-0.qcow2");
    ensure!(
        std::fs::read(&exported)? == stored,
        "the export is what the store has"
    );
    for reached in [stored.len() / 2, stored.len()] {
        std::fs::remove_file(&exported)?;
        std::fs::write(
            folder.join(format!("disk-0.qcow2.{image}.partial")),
            &stored[..reached],
        )?;
        shell.says(&line)?;
        ensure!(
            std::fs::read(&exported)? == stored,
            "it goes on at byte {reached}"
        );
    }
    Ok(())
}

/// One flipped bit is found, wherever it is.
fn damage_is_found(cluster: &Cluster, shell: &Shell, image: &str) -> anyhow::Result<()> {
    let raw = cluster.images().join(image).join("disk-1.raw");
    let file = std::fs::File::options().read(true).write(true).open(&raw)?;
    for at in [0, 8 * MIB - 1, file.metadata()?.len() - 1] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
        has(
            &shell.fails(&format!("image verify {image}"))?,
            &["disk-1.raw"],
        )?;
        file.write_all_at(&byte, at)?;
    }
    shell.says(&format!("image verify {image}")).map(drop)
}
