//! `wherry up` as its users and their scripts see it: starts, second starts, ends.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::cluster::Process;
use testkit::{program, wait};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own, which goes with the test.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("wherry-up-").tempdir()?)
}

fn arguments(data: &Path) -> Vec<String> {
    let data = data.display().to_string();
    let any = "127.0.0.1:0";
    [
        "up",
        "--data-dir",
        &data,
        "--api",
        any,
        "--agents",
        any,
        "--health",
        any,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Starts it and waits for its line.
async fn start(folder: &Path, name: &str) -> anyhow::Result<Process> {
    start_with(folder, name, &arguments(&folder.join("data"))).await
}

async fn start_with(folder: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Process> {
    let mut up = Process::start(Path::new(WHERRY), folder, name, arguments, &[])?;
    wait::until(PATIENCE, "wherry up is ready", async || {
        ensure!(up.is_running(), "it ended: {}", up.log());
        Ok(up.log().contains("wherry is ready: "))
    })
    .await?;
    let metrics = &bootstrap(folder)?["metrics_url"];
    let readiness = page(&metrics.replace("/metrics", "/readyz"))?;
    ensure!(
        readiness.starts_with("HTTP/1.0 200") && readiness.ends_with("ready\n"),
        "it says that it is ready, and is not: {readiness}"
    );
    Ok(up)
}

/// Returns a page's response, with its head.
fn page(url: &str) -> anyhow::Result<String> {
    let address = url.strip_prefix("http://").context("plain HTTP")?;
    let (address, path) = address.split_once('/').context("a path")?;
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn bootstrap(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(folder.join("data/bootstrap.json"))?;
    Ok(serde_json::from_str(&text)?)
}

fn run(folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = program::command(Path::new(WHERRY));
    command
        .args(arguments)
        .env("WHERRY_BOOTSTRAP", folder.join("data/bootstrap.json"));
    Ok(command.output()?)
}

#[tokio::test]
async fn a_second_start_finds_everything_as_it_was() -> anyhow::Result<()> {
    let folder = folder()?;
    let mut first = start(folder.path(), "first").await?;
    let path = folder.path().join("data/bootstrap.json");
    let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
    ensure!(
        mode == 0o600,
        "bootstrap.json holds a secret and has mode {mode:o}"
    );
    let before = bootstrap(folder.path())?;
    let keys: Vec<&str> = before.keys().map(String::as_str).collect();
    let promised = [
        "access_key_id",
        "access_key_secret",
        "activation_code",
        "agent_endpoint",
        "endpoint",
        "image_store",
        "metrics_url",
        "region_id",
    ];
    ensure!(keys == promised, "bootstrap.json has {keys:?}");
    let listed = run(folder.path(), &["source", "list", "--output", "json"])?;
    ensure!(
        listed.status.success() && listed.stdout == b"[]\n",
        "the key works: {listed:?}"
    );

    let data = arguments(&folder.path().join("data"));
    let second = program::command(Path::new(WHERRY)).args(&data).output()?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(
        second.status.code() == Some(1),
        "two on one directory: {second:?}"
    );
    ensure!(
        said.contains("another `wherry up` runs in"),
        "it says why: {said}"
    );

    first.stop().await?;
    let log = first.log();
    ensure!(
        log.matches("wherry is ready").count() == 1,
        "one line when ready: {log}"
    );
    let mut second = start(folder.path(), "second").await?;
    let after = bootstrap(folder.path())?;
    ensure!(
        before == after,
        "keys, code and ports stay: {before:#?} became {after:#?}"
    );
    let listed = run(folder.path(), &["source", "list", "--output", "json"])?;
    ensure!(
        listed.status.success(),
        "the key of the first start still works: {listed:?}"
    );
    second.stop().await?;
    Ok(())
}

#[tokio::test]
async fn two_run_on_one_machine_and_are_called_without_a_region() -> anyhow::Result<()> {
    let (one, other) = (folder()?, folder()?);
    let mut running = Vec::new();
    for folder in [&one, &other] {
        let data = folder.path().join("data").display().to_string();
        let arguments = ["up", "--data-dir", &data, "--api", "127.0.0.1:0"].map(str::to_owned);
        running.push(start_with(folder.path(), "up", &arguments).await?);
    }
    let (first, second) = (bootstrap(one.path())?, bootstrap(other.path())?);
    for url in ["endpoint", "agent_endpoint", "metrics_url"] {
        ensure!(first[url] != second[url], "both have {}", first[url]);
        let said = running[0].log();
        ensure!(said.contains(&first[url]), "{url} is not printed: {said}");
    }
    let mut list = program::command(Path::new(WHERRY));
    let list = list
        .args(["job", "list", "--output", "json"])
        .env("HOME", one.path())
        .env("WHERRY_ENDPOINT", &first["endpoint"])
        .env("WHERRY_ACCESS_KEY_ID", &first["access_key_id"])
        .env("WHERRY_ACCESS_KEY_SECRET", &first["access_key_secret"]);
    let listed = list.output()?;
    ensure!(
        listed.status.success() && listed.stdout == b"[]\n",
        "the endpoint knows its region: {listed:?}"
    );
    for up in &mut running {
        up.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn killed_with_sigkill_it_takes_its_servers_along_and_starts_again_also_with_another_key()
-> anyhow::Result<()> {
    let folder = folder()?;
    let mut first = start(folder.path(), "first").await?;
    let pid = first.pid().context("it runs")?.as_raw();
    let family = program::family(pid);
    let names: Vec<String> = family
        .iter()
        .filter_map(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    for server in ["postgres", "nats-server"] {
        ensure!(
            names.iter().any(|name| name == server),
            "{server} is a child: {names:?}"
        );
    }
    first.kill()?;
    wait::until(PATIENCE, "nothing of it runs", async || {
        Ok(family.iter().all(|&id| program::is_gone(id)))
    })
    .await?;

    let before = bootstrap(folder.path())?;
    let mut second = start(folder.path(), "second").await?;
    ensure!(
        bootstrap(folder.path())? == before,
        "it found everything as it was"
    );
    let operator = std::fs::read_to_string(folder.path().join("data/operator.json"))?;
    let operator: BTreeMap<String, String> = serde_json::from_str(&operator)?;
    let disabled = program::command(Path::new(WHERRY))
        .args([
            "admin",
            "key",
            "update",
            "default",
            &before["access_key_id"],
            "--active",
            "off",
        ])
        .env("WHERRY_ADMIN_SOCKET", &operator["admin_socket"])
        .output()?;
    ensure!(disabled.status.success(), "{disabled:?}");
    second.stop().await?;

    let mut third = start(folder.path(), "third").await?;
    let after = bootstrap(folder.path())?;
    ensure!(
        after["access_key_id"] != before["access_key_id"],
        "a key that is switched off is replaced"
    );
    ensure!(
        after["activation_code"] == before["activation_code"],
        "the activation code stays"
    );
    let listed = run(folder.path(), &["source", "list", "--output", "json"])?;
    ensure!(listed.status.success(), "the new key works: {listed:?}");
    third.stop().await?;
    let left: Vec<PathBuf> = std::fs::read_dir(folder.path().join("data"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "new"))
        .collect();
    ensure!(left.is_empty(), "half-written files are left: {left:?}");
    Ok(())
}

/// Everything below `root` that an account other than its owner may do something with.
fn open_to_others(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut open = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        // Servers remove files of theirs meanwhile.
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o777;
        if !metadata.is_symlink() && mode & 0o077 != 0 {
            open.push(format!("{mode:o} {}", path.display()));
        }
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).into_iter().flatten() {
                left.push(entry?.path());
            }
        }
    }
    Ok(open)
}

#[tokio::test]
async fn nothing_that_a_migration_leaves_is_open_to_other_accounts() -> anyhow::Result<()> {
    // As most shells have it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let folder = folder()?;
    let (disk, code) = (folder.path().join("disk"), folder.path().join("code"));
    std::fs::write(&disk, vec![7; 3 << 20])?;
    let mut up = start(folder.path(), "up").await?;
    let settings = bootstrap(folder.path())?;
    std::fs::write(&code, &settings["activation_code"])?;
    let agent: Vec<String> = [
        "agent",
        "--server",
        &settings["agent_endpoint"],
        "--activation-code-file",
        &code.display().to_string(),
        "--state-dir",
        &folder.path().join("agent").display().to_string(),
        "--name",
        "web",
        "--disk",
        &disk.display().to_string(),
    ]
    .map(str::to_owned)
    .to_vec();
    let mut agent = Process::start(Path::new(WHERRY), folder.path(), "web", &agent, &[])?;
    wait::until(PATIENCE, "the source is there", async || {
        ensure!(agent.is_running(), "it ended: {}", agent.log());
        let listed = run(folder.path(), &["source", "list"])?;
        Ok(String::from_utf8_lossy(&listed.stdout).contains("Available"))
    })
    .await?;
    let export = folder.path().join("export").display().to_string();
    for command in [
        &[
            "job",
            "create",
            "--source",
            "web",
            "--name",
            "move",
            "--image-name",
            "moved",
            "--start",
        ][..],
        &["job", "watch", "move"],
        &[
            "image", "export", "moved", "--to", &export, "--format", "raw",
        ],
        &[
            "image", "export", "moved", "--to", &export, "--format", "qcow2",
        ],
    ] {
        let done = run(folder.path(), command)?;
        ensure!(done.status.success(), "{command:?}: {done:?}");
    }
    for made in ["data", "agent", "export"] {
        let open = open_to_others(&folder.path().join(made))?;
        ensure!(open.is_empty(), "others may reach {open:#?}");
    }
    let images = std::fs::read_dir(folder.path().join("data/images"))?.count();
    ensure!(images == 1, "the image is among them");
    agent.stop().await?;
    up.stop().await?;
    Ok(())
}
