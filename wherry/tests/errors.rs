//! What a person is told when something that Wherry needs is not there: one sentence with what to do, and an exit code for scripts.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::ensure;
use testkit::cluster::{Cluster, ClusterConfig};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");

/// Port 1 needs root to listen on and is nobody's.
const NOBODY: &str = "127.0.0.1:1";

/// Runs a command without the settings of the developer's shell, but with where the servers' programs are.
fn run(arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(WHERRY);
    for (name, _) in std::env::vars() {
        let is_setting = name.starts_with("WHERRY_") || name.starts_with("ALIBABA_CLOUD_");
        if is_setting && !matches!(name.as_str(), "WHERRY_PG_BIN" | "WHERRY_NATS_SERVER") {
            command.env_remove(name);
        }
    }
    Ok(command
        .env("HOME", "/nonexistent")
        .args(arguments)
        .output()?)
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
    let any = "127.0.0.1:0";
    let mut arguments = vec!["up", "--data-dir", data, "--agents", any, "--health", any];
    arguments.extend(more);
    arguments
}

#[test]
fn no_postgres() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, url) = (
        folder.path().join("data"),
        format!("postgres://me:secret@{NOBODY}/wherry"),
    );
    let asked = up(
        path(&data),
        &["--api", "127.0.0.1:0", "--database-url", &url],
    );
    fails(
        &asked,
        4,
        &["can't connect to PostgreSQL", NOBODY, "is it running"],
    )?;
    fails(
        &["migrate", "--database-url", &url],
        4,
        &["can't connect to PostgreSQL", NOBODY],
    )?;
    let output = run(&["migrate", "--database-url", &url])?;
    ensure!(
        !String::from_utf8_lossy(&output.stderr).contains("secret"),
        "passwords are not printed"
    );
    Ok(())
}

#[test]
fn no_nats() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, url) = (folder.path().join("data"), format!("nats://{NOBODY}"));
    let asked = up(path(&data), &["--api", "127.0.0.1:0", "--nats-url", &url]);
    fails(&asked, 4, &["can't connect to NATS", NOBODY])?;
    // Nothing is left that blocks the next try: the directory is free and whole.
    fails(&asked, 4, &["can't connect to NATS", NOBODY])
}

#[test]
fn a_taken_port() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    fails(
        &up(path(&data), &["--api", &address]),
        3,
        &[&address, "in use", "--api"],
    )
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
