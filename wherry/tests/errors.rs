//! Messages for a person when something that Wherry needs is missing: one sentence with what to do, and an exit code
//! for scripts.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::ensure;
use testkit::cluster::{Cluster, ClusterConfig, Process};
use testkit::{program, wait};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");

/// Port 1 needs root to listen on, and no program uses it.
const NOBODY: &str = "127.0.0.1:1";

/// Any port that is free.
const ANY: &str = "127.0.0.1:0";

const SEAL_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command without the settings of the developer's shell, but with where the servers' programs are.
fn run(arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = program::command(Path::new(WHERRY));
    Ok(command.args(arguments).output()?)
}

/// The command fails with this exit code, and its last line holds all of these.
fn fails(arguments: &[&str], code: i32, parts: &[&str]) -> anyhow::Result<()> {
    let output = run(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "{arguments:?} ended with {} and said {said}",
        output.status
    );
    let line = said.lines().last().unwrap_or_default();
    for part in parts {
        ensure!(
            line.contains(part),
            "{arguments:?} does not say {part:?}: {line}"
        );
    }
    Ok(())
}

fn up<'a>(data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["up", "--data-dir", data, "--agents", ANY, "--health", ANY];
    arguments.extend(more);
    arguments
}

/// A role whose addresses and directories are its own.
struct Role<'a> {
    role: &'a str,
    folder: &'a Path,
    database_url: &'a str,
    nats_url: &'a str,
}

impl Role<'_> {
    fn arguments(&self) -> anyhow::Result<Vec<String>> {
        let mut arguments = [
            self.role,
            "--database-url",
            self.database_url,
            "--nats-url",
            self.nats_url,
            "--seal-key",
            SEAL_KEY,
            "--health",
            &program::free_address()?,
        ]
        .map(str::to_owned)
        .to_vec();
        let of_worker = [
            ("--worker-dir", path(&self.folder.join("worker"))),
            ("--image-store", path(&self.folder.join("images"))),
        ]
        .map(|(flag, path)| [flag.to_owned(), path.to_owned()]);
        let listeners = ["--api", "--agents"].map(|flag| [flag.to_owned(), ANY.to_owned()]);
        match self.role {
            "worker" => arguments.extend(of_worker.into_iter().flatten()),
            "gateway" => arguments.extend(listeners.into_iter().flatten()),
            _ => {}
        }
        Ok(arguments)
    }

    fn fails(&self, code: i32, parts: &[&str]) -> anyhow::Result<()> {
        let arguments = self.arguments()?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fails(&arguments, code, parts)
    }

    /// The missing part is back: the same role must start and take work.
    async fn starts(&self) -> anyhow::Result<()> {
        let name = format!("{}-starts", self.role);
        let arguments = self.arguments()?;
        let mut process = Process::start(Path::new(WHERRY), self.folder, &name, &arguments, &[])?;
        process.ready().await?;
        process.stop().await
    }
}

/// `wherry up` starts with these arguments: nothing of the last try is in its way.
async fn up_starts(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect();
    let mut up = Process::start(Path::new(WHERRY), folder, "up", &arguments, &[])?;
    wait::until(PATIENCE, "wherry up is ready", async || {
        ensure!(up.is_running(), "it ended: {}", up.log());
        Ok(up.log().contains("wherry is ready: "))
    })
    .await?;
    up.stop().await
}

#[tokio::test]
async fn no_postgres() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, url) = (
        folder.path().join("data"),
        format!("postgres://me:secret@{NOBODY}/wherry"),
    );
    let says = ["can't connect to PostgreSQL", NOBODY, "is it running"];
    fails(
        &up(path(&data), &["--api", ANY, "--database-url", &url]),
        4,
        &says,
    )?;
    fails(&["migrate", "--database-url", &url], 4, &says)?;
    let output = run(&["migrate", "--database-url", &url])?;
    ensure!(
        !String::from_utf8_lossy(&output.stderr).contains("secret"),
        "passwords are not printed"
    );
    let (database, nats) = (testkit::postgres().await, testkit::nats().await);
    for role in ["gateway", "scheduler", "worker"] {
        let missing = Role {
            role,
            folder: folder.path(),
            database_url: &url,
            nats_url: &nats.url(),
        };
        missing.fails(4, &says)?;
        let there = Role {
            database_url: &database.url(),
            ..missing
        };
        there.starts().await?;
    }
    up_starts(folder.path(), &up(path(&data), &["--api", ANY])).await
}

#[tokio::test]
async fn no_nats() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, url) = (folder.path().join("data"), format!("nats://{NOBODY}"));
    let says = ["can't connect to NATS", NOBODY, "is nats-server running"];
    let asked = up(path(&data), &["--api", ANY, "--nats-url", &url]);
    fails(&asked, 4, &says)?;
    // Nothing is left that blocks the next try: the directory is free and whole.
    fails(&asked, 4, &says)?;
    let database = testkit::postgres().await;
    for role in ["scheduler", "worker"] {
        Role {
            role,
            folder: folder.path(),
            database_url: &database.url(),
            nats_url: &url,
        }
        .fails(4, &says)?;
    }
    up_starts(folder.path(), &up(path(&data), &["--api", ANY])).await
}

#[tokio::test]
async fn a_taken_port() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let mut asked = Vec::new();
    for flag in ["--api", "--agents", "--health"] {
        asked = vec!["up", "--data-dir", path(&data)];
        for listener in ["--api", "--agents", "--health"] {
            let at = if listener == flag { &address } else { ANY };
            asked.extend([listener, at]);
        }
        fails(&asked, 3, &[&address, "in use", flag])?;
    }
    drop(taken);
    up_starts(folder.path(), &asked).await
}

#[test]
fn a_wrong_setting_of_a_role_is_said_before_anything_starts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let output = program::command(Path::new(WHERRY))
        .args(up(path(&data), &["--api", ANY]))
        .env("WHERRY_LEASE_TTL_SECS", "soon")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2), "{}: {said}", output.status);
    for part in ["worker", "'soon'", "--lease-ttl-secs"] {
        ensure!(said.contains(part), "{part} is not in: {said}");
    }
    ensure!(said.lines().count() == 1, "one sentence: {said}");
    ensure!(!data.join("postgres").exists(), "a database was made");
    Ok(())
}

#[test]
fn a_wrong_command_line() -> anyhow::Result<()> {
    fails(
        &["source", "list"],
        2,
        &["--endpoint is missing", "WHERRY_BOOTSTRAP"],
    )?;
    fails(
        &["source", "list", "--bootstrap", "/nonexistent/b.json"],
        2,
        &["can't read", "wherry up"],
    )?;
    fails(
        &["admin", "tenant", "list"],
        2,
        &["--socket", "--data-dir", "WHERRY_ADMIN_SOCKET"],
    )?;
    fails(
        &["admin", "tenant", "list", "--socket", "/nonexistent/s"],
        4,
        &["no socket at /nonexistent/s", "--admin"],
    )?;
    fails(
        &["scheduler", "--config", "/nonexistent/c.toml"],
        2,
        &["can't read the settings"],
    )
}

#[tokio::test]
async fn a_wrong_key_and_an_endpoint_where_nobody_is() -> anyhow::Result<()> {
    let config = ClusterConfig {
        binary: WHERRY.into(),
        workers: 0,
        environment: Vec::new(),
    };
    let cluster = Cluster::start(config).await?;
    let tenant = cluster.tenant("alice").await?;
    let key = cluster.store.create_access_key(&tenant.id).await?;
    let list = |endpoint: &str, id: &str, secret: &str| {
        [
            "source",
            "list",
            "--region",
            "cn-wherry",
            "--endpoint",
            endpoint,
            "--access-key-id",
            id,
            "--access-key-secret",
            secret,
        ]
        .map(str::to_owned)
    };
    let check = |arguments: [String; 10], code, parts: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fails(&arguments, code, parts)
    };
    let endpoint = cluster.endpoint();
    let wrong_secret = ["SignatureDoesNotMatch", "request "];
    check(list(&endpoint, &key.id, "wrong"), 1, &wrong_secret)?;
    check(
        list(&endpoint, "nobody", &key.secret),
        1,
        &["InvalidAccessKeyId.NotFound", "request "],
    )?;
    let nobody = format!("http://{NOBODY}");
    check(
        list(&nobody, &key.id, &key.secret),
        4,
        &["can't reach", NOBODY, "--endpoint"],
    )?;

    let shown = run(&list(&endpoint, &key.id, &key.secret)
        .each_ref()
        .map(String::as_str))?;
    ensure!(shown.status.success(), "the right key works: {shown:?}");
    let said = String::from_utf8_lossy(&shown.stdout);
    ensure!(
        said.contains("No sources yet. Run `wherry agent`"),
        "an empty list says what to do: {said}"
    );
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a test's directory has a plain name")
}
