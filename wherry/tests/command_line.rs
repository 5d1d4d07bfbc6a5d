//! The tour of the read-me: a source, a job, an image, all with the command line.

use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, ensure};
use testkit::cluster::{Cluster, ClusterConfig, Shell, has};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");
const MIB: u64 = 1 << 20;

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
    let shell = tenant.shell(&cluster)?;

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
        &["InvalidSystemDiskSize", "from 20 to", "request "],
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
