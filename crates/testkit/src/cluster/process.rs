//! A process of the cluster: started with a log file, killed or stopped, and started again with the same arguments.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{program, wait};

/// Longest time from a role's start until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time from SIGTERM until the process has stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A child process with its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts `binary` with the arguments; what it prints goes to `<directory>/<name>.log`.
    pub fn start(
        binary: &Path,
        directory: &Path,
        name: &str,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let mut process = Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            arguments: arguments.to_vec(),
            environment: environment.to_vec(),
            log: directory.join(format!("{name}.log")),
            child: None,
        };
        process.restart()?;
        Ok(process)
    }

    /// Starts the process again with the same arguments; it must have ended.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            bail!("{} still runs", self.name);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .context("open the log of a process")?;
        let mut command = program::command(&self.binary);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        self.child = Some(
            command
                .spawn()
                .with_context(|| format!("start {}", self.name))?,
        );
        Ok(())
    }

    /// Adds arguments for the process, from its next start on.
    pub fn add_arguments(&mut self, more: &[&str]) {
        self.arguments
            .extend(more.iter().map(|&one| one.to_owned()));
    }

    /// Bytes that it has read of files and devices since its start.
    pub fn bytes_read(&self) -> anyhow::Result<u64> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        let counts = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let read = counts.lines().find_map(|line| line.strip_prefix("rchar: "));
        Ok(read.context("the kernel counts reads")?.parse()?)
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The argument that follows `flag`.
    pub fn argument_after(&self, flag: &str) -> Option<String> {
        let position = self
            .arguments
            .iter()
            .position(|argument| argument == flag)?;
        self.arguments.get(position + 1).cloned()
    }

    /// Returns true if the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until its page at the address of `--health` reports that it is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        // Requests to health pages need it, though they are plain HTTP.
        let _installed_by_another_test = rustls::crypto::ring::default_provider().install_default();
        let name = self.name.clone();
        let address = self
            .argument_after("--health")
            .with_context(|| format!("{name} is started without --health"))?;
        let url = format!("http://{address}/readyz");
        wait::until(
            READY_TIMEOUT,
            &format!("{name} is ready at {url}"),
            async || {
                if !self.is_running() {
                    bail!("{name} has ended:\n{}", self.log());
                }
                Ok(reqwest::get(&url)
                    .await
                    .is_ok_and(|answer| answer.status().is_success()))
            },
        )
        .await
    }

    /// Its process id.
    pub fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id();
        Some(Pid::from_raw(
            i32::try_from(id).expect("a process id fits its C type"),
        ))
    }

    /// Ends it with SIGKILL: it gets no chance to clean up.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child
                .kill()
                .with_context(|| format!("kill {}", self.name))?;
            child.wait()?;
        }
        self.child = None;
        Ok(())
    }

    /// Sends a signal, such as SIGSTOP and SIGCONT.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits until it has ended by itself or by a signal, and answers with how.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let name = self.name.clone();
        let child = self
            .child
            .as_mut()
            .with_context(|| format!("{name} does not run"))?;
        let status = wait::some(STOP_TIMEOUT, &format!("{name} ends"), async || {
            Ok(child.try_wait()?)
        })
        .await?;
        self.child = None;
        Ok(status)
    }

    /// Ends it with SIGTERM and waits until it has drained.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            self.signal(Signal::SIGTERM)?;
            wait::until(
                STOP_TIMEOUT,
                &format!("{} stops", self.name.clone()),
                async || Ok(!self.is_running()),
            )
            .await?;
        }
        self.child = None;
        Ok(())
    }

    /// Everything that the process has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- {}: last lines of its log", self.name);
            for line in tail.into_iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
