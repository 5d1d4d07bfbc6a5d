//! Child processes of the load test: `wherry` itself, as a deployment of its own, as agents, and as the operator's
//! command.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use serde_json::Value;
use tokio::process::{Child, Command};

/// An operator's command may take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// This program, with none of the settings that the caller's environment has for other commands.
pub(crate) fn wherry() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("can't find this program's own file")?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let is_where_servers_are =
            matches!(name_text.as_ref(), "WHERRY_PG_BIN" | "WHERRY_NATS_SERVER");
        if name_text.starts_with("WHERRY_") && !is_where_servers_are {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// Starts a process that lasts. It dies with this one, whatever way this one ends. Its output goes to `log`.
///
/// To be called on the main thread: the kernel ties such a child to the thread that made it.
pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Child> {
    let log_file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    command
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .kill_on_drop(true);
    let parent = getpid();
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the signal was requested.
            if getppid() == parent {
                Ok(())
            } else {
                Err(Errno::ESRCH.into())
            }
        })
    };
    command.spawn().context("can't start wherry")
}

/// Sends SIGTERM to a process, so that it drains. The process may be gone already.
pub(crate) fn ask_to_end(child: &Child) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _already_gone = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
}

/// Runs a command that prints JSON.
pub(crate) async fn answer(mut command: Command) -> anyhow::Result<Value> {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_TIMEOUT, command.output())
        .await
        .with_context(|| format!("it gave no answer within {} s", ANSWER_TIMEOUT.as_secs()))?
        .context("can't start wherry")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim().trim_start_matches("error: "));
    }
    serde_json::from_slice(&output.stdout).context("wherry printed no JSON")
}
