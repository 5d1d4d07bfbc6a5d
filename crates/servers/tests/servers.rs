//! The private servers as their users see them: real programs, real crashes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::jetstream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use servers::{Durability, Nats, Postgres, ServerError};
use sqlx::{Connection, PgConnection};

const PATIENCE: Duration = Duration::from_secs(60);

async fn write_row(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("create table kept (number int); insert into kept values (7)")
        .execute(&mut connection)
        .await?;
    Ok(())
}

async fn read_row(url: &str) -> Result<i32> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar("select number from kept")
        .fetch_one(&mut connection)
        .await?)
}

/// async-nats does not read user and password from an address by itself.
async fn connect_nats(url: &str) -> Result<async_nats::Client> {
    let address: async_nats::ServerAddr = url.parse()?;
    let user = address.username().context("a user")?.to_owned();
    let password = address.password().context("a password")?.to_owned();
    Ok(
        async_nats::ConnectOptions::with_user_and_password(user, password)
            .connect(address)
            .await?,
    )
}

async fn write_message(url: &str) -> Result<()> {
    let stream = jetstream::new(connect_nats(url).await?);
    let config = jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept".into()],
        ..Default::default()
    };
    stream.create_stream(config).await?;
    stream.publish("kept", "seven".into()).await?.await?;
    Ok(())
}

async fn count_messages(url: &str) -> Result<u64> {
    let context = jetstream::new(connect_nats(url).await?);
    let mut stream = context.get_stream("KEPT").await?;
    Ok(stream.info().await?.state.messages)
}

/// Waits for a process to be gone.
fn wait_until_gone(pid: i32) {
    let since = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.contains("State:\tZ") {
            return;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "process {pid} still runs: {status}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_second_start_finds_the_data_as_it_was() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (postgres_dir, nats_dir) = (dir.path().join("a/postgres"), dir.path().join("a/nats"));
    let postgres = Postgres::start(&postgres_dir, Durability::Full).await?;
    let nats = Nats::start(&nats_dir).await?;
    write_row(&postgres.url()).await?;
    write_message(&nats.url()).await?;
    let pids = [postgres.pid(), nats.pid()];
    postgres.stop().await;
    nats.stop().await;
    for pid in pids {
        wait_until_gone(pid.context("it ran")?.cast_signed());
    }
    let postgres = Postgres::start(&postgres_dir, Durability::Full).await?;
    let nats = Nats::start(&nats_dir).await?;
    assert_eq!(read_row(&postgres.url()).await?, 7);
    assert_eq!(count_messages(&nats.url()).await?, 1);
    Ok(())
}

/// The helper process: it owns both servers and is killed.
struct Owner {
    process: Child,
    pids: [i32; 2],
    urls: [String; 2],
}

impl Drop for Owner {
    fn drop(&mut self) {
        // An error here means that the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start_owner(dir: &Path) -> Result<Owner> {
    let test = std::env::current_exe()?;
    let program = test
        .ancestors()
        .nth(2)
        .context("target folder")?
        .join("examples/run_servers");
    let process = Command::new(&program)
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} is built with the tests", program.display()))?;
    Owner::read(process)
}

impl Owner {
    /// Reads the addresses of the servers of a started owner.
    fn read(mut process: Child) -> Result<Self> {
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("piped")?).read_line(&mut line)?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [postgres, nats, postgres_url, nats_url] = words[..] else {
            anyhow::bail!("it printed {line:?}")
        };
        Ok(Self {
            process,
            pids: [postgres.parse()?, nats.parse()?],
            urls: [postgres_url.to_owned(), nats_url.to_owned()],
        })
    }

    /// Kills the owner, and waits until its servers are gone as well.
    fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        for pid in self.pids {
            wait_until_gone(pid);
        }
        Ok(())
    }
}

#[tokio::test]
async fn killing_the_owner_takes_the_servers_along_and_loses_no_data() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = start_owner(dir.path())?;
    write_row(&owner.urls[0]).await?;
    write_message(&owner.urls[1]).await?;
    owner.kill()?;
    let successor = start_owner(dir.path())?;
    assert_eq!(read_row(&successor.urls[0]).await?, 7);
    assert_eq!(count_messages(&successor.urls[1]).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_crashed_server_comes_back_at_the_same_address() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = Postgres::start(&dir.path().join("postgres"), Durability::Full).await?;
    let nats = Nats::start(&dir.path().join("nats")).await?;
    write_row(&postgres.url()).await?;
    write_message(&nats.url()).await?;
    for pid in [postgres.pid(), nats.pid()] {
        kill(
            Pid::from_raw(pid.context("it runs")?.cast_signed()),
            Signal::SIGKILL,
        )?;
    }
    let since = Instant::now();
    loop {
        let found = (
            read_row(&postgres.url()).await,
            count_messages(&nats.url()).await,
        );
        if matches!(found, (Ok(7), Ok(1))) {
            return Ok(());
        }
        assert!(since.elapsed() < PATIENCE, "not back: {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_stale_pid_file_of_a_living_stranger_does_not_stop_a_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = Postgres::start(dir.path(), Durability::Test).await?;
    write_row(&postgres.url()).await?;
    postgres.stop().await;
    // As after a crash of the machine, when this test's own number was the server's.
    let pid_file = dir.path().join("data/postmaster.pid");
    std::fs::write(
        &pid_file,
        format!(
            "{}\n{}\n",
            std::process::id(),
            dir.path().join("data").display()
        ),
    )?;
    let postgres = Postgres::start(dir.path(), Durability::Test).await?;
    assert_eq!(read_row(&postgres.url()).await?, 7);
    Ok(())
}

#[tokio::test]
async fn one_directory_serves_one_owner() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let first = Nats::start(dir.path()).await?;
    let error = Nats::start(dir.path()).await.expect_err("in use");
    assert!(matches!(error, ServerError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("stop that one first"), "{error}");
    first.stop().await;
    Nats::start(dir.path()).await?;
    Ok(())
}

#[tokio::test]
async fn data_of_another_version_is_refused_with_the_way_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    Postgres::start(dir.path(), Durability::Test)
        .await?
        .stop()
        .await;
    std::fs::write(dir.path().join("data/PG_VERSION"), "9\n")?;
    let error = Postgres::start(dir.path(), Durability::Test)
        .await
        .expect_err("another version");
    assert!(
        error
            .to_string()
            .contains("set WHERRY_PG_BIN to the programs of version 9"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn without_its_password_nobody_gets_in() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = Postgres::start(dir.path(), Durability::Test).await?;
    let (_, address) = postgres
        .url()
        .split_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .context("an address")?;
    let refused = PgConnection::connect(&format!("postgres://wherry:guess@{address}")).await;
    assert!(refused.is_err());
    Ok(())
}

/// Most containers run as root and forbid user namespaces. This test uses a namespace that contains every account and
/// allows no further namespace.
#[tokio::test]
async fn root_without_user_namespaces_runs_postgres_as_another_account() -> Result<()> {
    use nix::sched::{CloneFlags, unshare};
    use std::io::Write;
    use std::os::unix::process::CommandExt;

    if !nix::unistd::geteuid().is_root() {
        println!("not root: nothing to show");
        return Ok(());
    }
    let test = std::env::current_exe()?;
    let program = test
        .ancestors()
        .nth(2)
        .context("target folder")?
        .join("examples/run_servers");
    let dir = tempfile::tempdir()?;
    // Root's capabilities come with the exec after the accounts are mapped, hence the shell in the shell.
    let script = r#"read mapped; exec sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$0" "$1"' "$0" "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program).arg(dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // SAFETY: one system call.
    unsafe { command.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWUSER)?)) };
    let mut process = command.spawn()?;
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", process.id()), "0 0 65536")?;
    }
    process.stdin.take().context("piped")?.write_all(b"\n")?;
    let owner = Owner::read(process)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", owner.pids[0]))?;
    let user = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .context("a user")?;
    assert!(
        !user.split_ascii_whitespace().any(|id| id == "0"),
        "PostgreSQL runs as {user}"
    );
    write_row(&owner.urls[0]).await?;
    assert_eq!(read_row(&owner.urls[0]).await?, 7);
    owner.kill()
}

/// Runs in a process of its own, whose environment hides every server.
#[test]
fn a_missing_server_is_named_with_the_three_ways_out() -> Result<()> {
    let test = std::env::current_exe()?;
    let program = test
        .ancestors()
        .nth(2)
        .context("target folder")?
        .join("examples/run_servers");
    let dir = tempfile::tempdir()?;
    let output = Command::new(program)
        .arg(dir.path())
        .env("WHERRY_PG_BIN", "/nowhere")
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(
            "no PostgreSQL found: run `make setup`, or set WHERRY_PG_BIN, or give --database-url"
        ),
        "{text}",
    );
    Ok(())
}

#[tokio::test]
async fn the_role_of_a_private_postgres_owns_its_database_and_is_no_superuser() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Postgres::start(directory.path(), Durability::Test).await?;
    let mut connection = PgConnection::connect(&server.url()).await?;
    let able: Vec<String> = sqlx::query_scalar(
        "select rolname::text from pg_roles where rolcanlogin and (rolsuper or rolreplication or rolbypassrls)",
    )
    .fetch_all(&mut connection)
    .await?;
    assert_eq!(
        able,
        [] as [String; 0],
        "nobody can log in as more than an owner"
    );
    for statement in [
        "copy (select 1) to program 'true'",
        "select pg_read_file('/etc/hostname')",
        "alter system set log_statement = 'all'",
        "alter role wherry superuser",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await;
        assert!(refused.is_err(), "{statement}");
    }
    // As the migrations do it.
    for statement in [
        "create role wherry_tenant nologin",
        "grant wherry_tenant to wherry",
        "create table t (n int)",
        "set role wherry_tenant",
    ] {
        sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .context(statement)?;
    }
    server.stop().await;
    Ok(())
}
