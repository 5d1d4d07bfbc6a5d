//! A private NATS server with JetStream.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::ServerError;
use crate::child::{Child, Launch};
use crate::directory::{Directory, preparing, tail};
use crate::find::{self, VariableNames};
use crate::identity::Identity;
use crate::port;
use crate::postgres::blocking;

/// Longest time from start to ready; reading the streams back is part of it.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// Number of attempts to start when another program took a port.
const STARTS: usize = 3;

/// A private NATS server. Dropping it stops it; [`Nats::stop`] does so without blocking the runtime.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    port: u16,
    monitor_port: u16,
    password: String,
    // Unlocks after the server is gone: fields are dropped in this order.
    _directory: Directory,
}

impl Nats {
    /// Starts NATS with JetStream on the streams in `dir`, which is created if necessary. Waits until it accepts
    /// connections.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(dir: &Path) -> Result<Self, ServerError> {
        let dir = dir.to_owned();
        blocking(move || Self::start_blocking(&dir)).await
    }

    /// Returns the address with user and password.
    pub fn url(&self) -> String {
        format!("nats://wherry:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Returns the address of the server's own monitoring pages (`/varz`, `/jsz`, `/healthz`).
    pub fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// Returns the number of the process, if it runs now.
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Stops the server: it closes its connections and leaves its streams on disk.
    pub async fn stop(self) {
        blocking(move || drop(self)).await;
    }

    fn start_blocking(dir: &Path) -> Result<Self, ServerError> {
        let program = find::program(
            "WHERRY_NATS_SERVER",
            "bin",
            "nats-server",
            Vec::new(),
            VariableNames::Program,
        )
        .ok_or(ServerError::Missing {
            server: "NATS",
            variable: "WHERRY_NATS_SERVER",
            flag: "--nats-url",
        })?;
        let directory = Directory::open(dir)?;
        let password = directory.password()?;
        let log = directory.log();
        let mut attempt = 0;
        loop {
            attempt += 1;
            fs::write(&log, "").map_err(preparing("write", &log))?;
            let [port, monitor_port] =
                port::free().map_err(preparing("find a free port for", dir))?;
            let settings = write_settings(&directory, &password, port, monitor_port)?;
            let child = Child::start(launch(&program, &settings, &log)).map_err(|source| {
                ServerError::Running {
                    program: program.clone(),
                    source,
                }
            })?;
            match wait_until_ready(&child, port, &log, &program) {
                Ok(()) => {
                    return Ok(Self {
                        child,
                        port,
                        monitor_port,
                        password,
                        _directory: directory,
                    });
                }
                Err(ServerError::Ended { tail, .. })
                    if attempt < STARTS && tail.contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes the settings to a file: a command line can be read by everybody on the machine.
fn write_settings(
    directory: &Directory,
    password: &str,
    port: u16,
    monitor_port: u16,
) -> Result<PathBuf, ServerError> {
    let path = directory.path().join("server.conf");
    let streams = directory.path().join("streams");
    let text = format!(
        "server_name: wherry\n\
         listen: \"127.0.0.1:{port}\"\n\
         http: \"127.0.0.1:{monitor_port}\"\n\
         authorization {{ user: wherry, password: \"{password}\" }}\n\
         jetstream {{ store_dir: {streams:?} }}\n"
    );
    directory.write_private(&path, &text)?;
    Ok(path)
}

fn launch(program: &Path, settings: &Path, log: &Path) -> Launch {
    Launch {
        name: "nats",
        program: program.to_owned(),
        arguments: vec!["-c".into(), settings.into()],
        log: log.to_owned(),
        identity: Identity::Own,
        stop_signal: Signal::SIGTERM,
        orphan_signal: Signal::SIGTERM,
        stop_grace: Duration::from_secs(10),
    }
}

fn wait_until_ready(
    child: &Child,
    port: u16,
    log: &Path,
    program: &Path,
) -> Result<(), ServerError> {
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
        if greets_with_jetstream(port) && child.supervise() {
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

/// Returns true if JetStream is up, according to the server's first line, `INFO {…}`.
fn greets_with_jetstream(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let patience = Duration::from_secs(1);
    let Ok(stream) = TcpStream::connect_timeout(&address, patience) else {
        return false;
    };
    if stream.set_read_timeout(Some(patience)).is_err() {
        return false;
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok()
        && line.starts_with("INFO ")
        && line.contains("\"jetstream\":true")
}
