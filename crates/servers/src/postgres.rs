//! A private PostgreSQL.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ServerError;
use crate::child::{Child, Launch};
use crate::directory::{Directory, preparing, tail};
use crate::find::{self, VariableNames};
use crate::identity::Identity;
use crate::port;

/// Longest time from start to ready; recovery after a crash is part of it.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// Number of attempts to start when another program took the port.
const STARTS: usize = 3;
/// User and database of `wherry`.
const NAME: &str = "wherry";
/// Role that creates the cluster.
const SUPERUSER: &str = "postgres";

/// Data that survives a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every committed transaction.
    Full,
    /// None: nothing is flushed. For tests.
    Test,
}

impl Durability {
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Full => &["max_connections=200"],
            Self::Test => &[
                "max_connections=500",
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "shared_buffers=64MB",
                // Databases are created and dropped with each test.
                "autovacuum=off",
            ],
        }
    }
}

/// A private PostgreSQL. Dropping it stops it; [`Postgres::stop`] does so without blocking the runtime.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    password: String,
    // Unlocks after the server is gone: fields are dropped in this order.
    _directory: Directory,
}

impl Postgres {
    /// Starts PostgreSQL on the data in `dir`, which is created if necessary. Waits until it accepts connections.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(dir: &Path, durability: Durability) -> Result<Self, ServerError> {
        let dir = dir.to_owned();
        blocking(move || Self::start_blocking(&dir, durability)).await
    }

    /// Returns the address of the database `wherry`, with its password.
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// Returns the address of a database of this server, with its password.
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://{NAME}:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Returns the number of the server's first process, if it runs now.
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Stops the server: it closes its connections and leaves everything on disk.
    pub async fn stop(self) {
        blocking(move || drop(self)).await;
    }

    fn start_blocking(dir: &Path, durability: Durability) -> Result<Self, ServerError> {
        let programs = Programs::find()?;
        let directory = Directory::open(dir)?;
        let identity = Identity::not_root();
        let password = directory.password()?;
        let data = directory.path().join("data");
        if data.join("PG_VERSION").is_file() {
            check_version(&data, &programs.postgres)?;
            end_orphan(&data)?;
        } else {
            initialise(&directory, &data, &programs, identity)?;
        }
        // A copied directory still belongs to the account that copied it.
        identity
            .own(directory.path())
            .map_err(preparing("give away", directory.path()))?;
        let log = directory.log();
        let mut attempt = 0;
        loop {
            attempt += 1;
            fs::write(&log, "").map_err(preparing("write", &log))?;
            let [port] = port::free().map_err(preparing("find a free port for", &data))?;
            let child = Child::start(launch(&programs, &data, &log, port, durability, identity))
                .map_err(|source| ServerError::Running {
                    program: programs.postgres.clone(),
                    source,
                })?;
            match wait_until_ready(&child, &data, &log, &programs.postgres) {
                Ok(()) => {
                    return Ok(Self {
                        child,
                        port,
                        password,
                        _directory: directory,
                    });
                }
                Err(ServerError::Ended { tail, .. })
                    if attempt < STARTS && tail.contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs blocking work off the async threads; a panic continues in the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                panic!("blocking work was cancelled, which only a runtime that ends does: {error}")
            }
        },
    }
}

struct Programs {
    postgres: PathBuf,
    initdb: PathBuf,
}

impl Programs {
    fn find() -> Result<Self, ServerError> {
        let initdb = find::program(
            "WHERRY_PG_BIN",
            "postgres/bin",
            "initdb",
            find::debian_postgres_folders(),
            VariableNames::Folder,
        )
        // Debian links single programs into the search path; the others lie beside the program itself.
        .and_then(|path| fs::canonicalize(path).ok());
        initdb
            .map(|initdb| Self {
                postgres: initdb.with_file_name("postgres"),
                initdb,
            })
            .filter(|programs| programs.postgres.is_file())
            .ok_or(ServerError::Missing {
                server: "PostgreSQL",
                variable: "WHERRY_PG_BIN",
                flag: "--database-url",
            })
    }
}

fn launch(
    programs: &Programs,
    data: &Path,
    log: &Path,
    port: u16,
    durability: Durability,
    identity: Identity,
) -> Launch {
    let mut arguments: Vec<OsString> = vec![
        "-D".into(),
        data.into(),
        "-p".into(),
        port.to_string().into(),
    ];
    let fixed = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
    for setting in fixed.iter().chain(durability.settings()) {
        arguments.extend(["-c".into(), (*setting).into()]);
    }
    Launch {
        name: "postgres",
        program: programs.postgres.clone(),
        arguments,
        log: log.to_owned(),
        identity,
        // "Fast" ends sessions and writes everything. An orphan gets "immediate", since it must not linger; the log
        // replays the rest.
        stop_signal: Signal::SIGINT,
        orphan_signal: Signal::SIGQUIT,
        stop_grace: Duration::from_secs(15),
    }
}

/// Creates the data directory beside its final place and then renames it, so that an interrupted start leaves nothing
/// incomplete.
fn initialise(
    directory: &Directory,
    data: &Path,
    programs: &Programs,
    identity: Identity,
) -> Result<(), ServerError> {
    let partial = data.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(preparing("remove", &partial))?;
    }
    fs::create_dir(&partial).map_err(preparing("create", &partial))?;
    let log = directory.log();
    identity
        .own(directory.path())
        .map_err(preparing("give away", directory.path()))?;
    let mut initdb = Command::new(&programs.initdb);
    initdb
        .arg("-D")
        .arg(&partial)
        .arg("--pwfile")
        .arg(directory.path().join("password"))
        .args([
            "-U",
            SUPERUSER,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-instructions",
        ]);
    run(initdb, identity, &log, None)?;
    let mut single = Command::new(&programs.postgres);
    single
        .arg("--single")
        .arg("-D")
        .arg(&partial)
        .arg("postgres");
    run(single, identity, &log, Some(&owner(&directory.password()?)))?;
    fs::rename(&partial, data).map_err(preparing("name", data))
}

/// Returns statements, one a line, that create the role and the database of the server's user. The role owns its
/// database and creates roles and databases. Unlike a superuser, it runs no programs and reads no files. Nobody can log
/// in as the superuser.
fn owner(password: &str) -> String {
    let password = password.replace('\'', "''");
    format!(
        "create role {NAME} login createrole createdb password '{password}';\n\
         create database {NAME} owner {NAME};\n\
         alter role {SUPERUSER} nologin password null;\n"
    )
}

/// Runs a program to its end.
fn run(
    mut command: Command,
    identity: Identity,
    log: &Path,
    input: Option<&str>,
) -> Result<(), ServerError> {
    use std::io::Write;

    let program = PathBuf::from(command.get_program());
    let failed = |source| ServerError::Running {
        program: program.clone(),
        source,
    };
    let output = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .map_err(preparing("open", log))?;
    command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(output.try_clone().map_err(preparing("open", log))?)
        .stderr(output);
    identity.apply(&mut command);
    let mut process = command.spawn().map_err(failed)?;
    if let (Some(text), Some(mut pipe)) = (input, process.stdin.take()) {
        pipe.write_all(text.as_bytes()).map_err(failed)?;
    }
    let status = process.wait().map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(ServerError::Ended {
            program: program.clone(),
            outcome: status.to_string(),
            log: log.to_owned(),
            tail: tail(log),
        })
    }
}

fn check_version(data: &Path, program: &Path) -> Result<(), ServerError> {
    let file = data.join("PG_VERSION");
    let made_by = fs::read_to_string(&file)
        .map_err(preparing("read", &file))?
        .trim()
        .to_owned();
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|source| ServerError::Running {
            program: program.to_owned(),
            source,
        })?;
    // "postgres (PostgreSQL) 18.6", with more words on some systems.
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .split_ascii_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .and_then(|version| version.split('.').next())
        .unwrap_or("unknown")
        .to_owned();
    if found == made_by {
        return Ok(());
    }
    Err(ServerError::OtherVersion {
        dir: data.to_owned(),
        made_by,
        program: program.to_owned(),
        found,
    })
}

/// Ends a server that still runs on the data, and removes a stale `postmaster.pid`.
///
/// We hold the directory's lock, so a running server has lost its parent. A `postmaster.pid` without a server is left
/// from a crash. PostgreSQL itself removes that file only if no other process has received its number since.
fn end_orphan(data: &Path) -> Result<(), ServerError> {
    let file = data.join("postmaster.pid");
    let Some(pid) = first_line_as_pid(&file) else {
        return Ok(());
    };
    let works_here =
        || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == data);
    let since = Instant::now();
    while works_here() {
        if since.elapsed() > READY_PATIENCE {
            return Err(ServerError::InUse {
                dir: data.to_owned(),
            });
        }
        // An error here means that the process is gone already.
        let _ = kill(pid, Signal::SIGQUIT);
        std::thread::sleep(Duration::from_millis(50));
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(preparing("remove", &file)(error))
        }
        _ => Ok(()),
    }
}

fn first_line_as_pid(file: &Path) -> Option<Pid> {
    let text = fs::read_to_string(file).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// Waits until the eighth line of `postmaster.pid` is `ready`, which it is once connections are accepted.
fn wait_until_ready(
    child: &Child,
    data: &Path,
    log: &Path,
    program: &Path,
) -> Result<(), ServerError> {
    let file = data.join("postmaster.pid");
    let since = Instant::now();
    loop {
        if let Some(outcome) = child.outcome() {
            return Err(ServerError::Ended {
                program: program.to_owned(),
                outcome,
                log: log.to_owned(),
                tail: tail(log),
            });
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text
            .lines()
            .nth(7)
            .is_some_and(|line| line.trim() == "ready")
            && child.supervise()
        {
            return Ok(());
        }
        if since.elapsed() > READY_PATIENCE {
            return Err(ServerError::NotReady {
                program: program.to_owned(),
                secs: READY_PATIENCE.as_secs(),
                log: log.to_owned(),
                tail: tail(log),
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
