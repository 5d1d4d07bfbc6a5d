//! A server process that dies with this one and is started again when it crashes.
//!
//! The kernel sends a process its *parent death signal* when the **thread** that started it ends. So each server has a
//! thread of its own here. The thread starts the server, waits for it, and ends after it. However this process dies,
//! that thread dies with it and the server gets its signal. The signal is requested after the last change of identity,
//! since such a change clears it.
//!
//! Each server is in a process group of its own. Ctrl-C at a terminal is sent to the whole foreground group, and a
//! database that stops while its clients still drain would fail them.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child as Process, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid, getppid};

use crate::identity::Identity;

/// Longest pause between two starts of a server that keeps crashing.
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// Command, environment and signals of a server.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Its name, for logs.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) log: PathBuf,
    pub(crate) identity: Identity,
    /// Ends it in order.
    pub(crate) stop_signal: Signal,
    /// Ends it when this process is gone.
    pub(crate) orphan_signal: Signal,
    /// Time that it may take to end in order.
    pub(crate) stop_grace: Duration,
}

/// A supervised server.
#[derive(Debug)]
pub(crate) struct Child {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    launch: Arc<Launch>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The running process. It is removed before the process is reaped, so that no signal can reach another process of
    /// that number.
    pid: Option<Pid>,
    /// True once the server came up: from then on it is started again when it crashes.
    supervised: bool,
    stopping: bool,
    /// Outcome of a server that ended before it came up.
    outcome: Option<String>,
}

impl Child {
    /// Starts the server.
    pub(crate) fn start(launch: Launch) -> io::Result<Self> {
        let launch = Arc::new(launch);
        let shared = Arc::new(Shared::default());
        let (tell, started) = mpsc::sync_channel(1);
        let (in_thread, of_thread) = (Arc::clone(&shared), Arc::clone(&launch));
        let thread = std::thread::Builder::new()
            .name(format!("{}-supervisor", launch.name))
            .spawn(move || match launch_process(&of_thread) {
                Ok(process) => {
                    in_thread.lock().pid = Some(pid_of(&process));
                    let _ = tell.send(Ok(()));
                    supervise(&in_thread, &of_thread, process);
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            })?;
        started
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the server ended early")))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            launch,
        })
    }

    /// Returns the outcome of a server that ended before it came up.
    pub(crate) fn outcome(&self) -> Option<String> {
        self.shared.lock().outcome.clone()
    }

    /// Records that the server came up: from now on it is started again when it crashes. Returns false if it has ended
    /// meanwhile.
    pub(crate) fn supervise(&self) -> bool {
        let mut state = self.shared.lock();
        state.supervised = true;
        state.outcome.is_none()
    }

    /// Returns the number of the process, if it runs now.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.shared
            .lock()
            .pid
            .map(|pid| pid.as_raw().unsigned_abs())
    }

    /// Ends the server in order, or kills it if that takes too long. Blocks.
    pub(crate) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.signal(self.launch.stop_signal);
        let since = Instant::now();
        while !thread.is_finished() {
            if since.elapsed() > self.launch.stop_grace {
                tracing::warn!(
                    server = self.launch.name,
                    "did not stop in order and is killed"
                );
                self.signal(Signal::SIGKILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if thread.join().is_err() {
            tracing::error!(server = self.launch.name, "its supervisor panicked");
        }
    }

    fn signal(&self, signal: Signal) {
        let state = self.shared.lock();
        if let Some(pid) = state.pid
            && let Err(error) = kill(pid, signal)
        {
            tracing::warn!(server = self.launch.name, %error, "cannot be signalled");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    // The state is whole after any panic: it is never changed in steps.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, unless the server is to stop. Returns true if it is to stop.
    fn pause(&self, time: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), time, |state| !state.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        state.stopping
    }
}

fn supervise(shared: &Shared, launch: &Launch, mut process: Process) {
    let mut pause = Duration::from_millis(100);
    loop {
        let started = Instant::now();
        let outcome = wait(shared, &mut process);
        {
            let mut state = shared.lock();
            if state.stopping {
                return;
            }
            if !state.supervised {
                state.outcome = Some(outcome);
                return;
            }
        }
        if started.elapsed() > MOST_PAUSE {
            pause = Duration::from_millis(100);
        }
        tracing::warn!(server = launch.name, outcome, log = %launch.log.display(), "ended by itself and is started again");
        process = loop {
            if shared.pause(pause) {
                return;
            }
            pause = (pause * 2).min(MOST_PAUSE);
            match launch_process(launch) {
                Ok(process) => break process,
                Err(error) => {
                    tracing::error!(server = launch.name, %error, "cannot be started again")
                }
            }
        };
        let mut state = shared.lock();
        state.pid = Some(pid_of(&process));
        if state.stopping {
            // The stop was requested while there was no process to signal.
            let _ = kill(pid_of(&process), launch.stop_signal);
        }
    }
}

/// Waits for the process to end, and reaps it when no other thread can signal it any more.
fn wait(shared: &Shared, process: &mut Process) -> String {
    let pid = pid_of(process);
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    shared.lock().pid = None;
    match process.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

fn launch_process(launch: &Launch) -> io::Result<Process> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&launch.log)?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    launch.identity.apply(&mut command);
    let (parent, signal) = (getpid(), launch.orphan_signal);
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(signal)?;
            // The parent may have died before the signal was requested.
            if getppid() == parent {
                Ok(())
            } else {
                Err(io::Error::from(Errno::ESRCH))
            }
        })
    };
    command.spawn()
}

fn pid_of(process: &Process) -> Pid {
    Pid::from_raw(process.id().cast_signed())
}
