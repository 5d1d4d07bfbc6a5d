//! Running the programs that own partition tables and file systems.
//!
//! They parse disks that strangers may have written, some of them crash on damaged ones, and an agent mostly runs as
//! root. So each gets nothing of ours: an empty environment, a program of the system's folders, the disk as an open
//! descriptor, limits on memory and time, and the [`sandbox`]. An answer counts only if the program ended by itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::sandbox::{self, Reach};

/// The disk, as every program finds it.
pub(crate) const INPUT: &str = "/dev/fd/0";

/// Directories of programs. The path of whoever started the agent doesn't count.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Sets the limits of a program before it begins.
const LIMITER: Tool = Tool::reader("prlimit", "util-linux");

/// Ends a program that takes too long.
const TIMER: Tool = Tool::reader("timeout", "coreutils");

/// Longest wait for a program after it was asked to end.
const GRACE_SECS: &str = "2";

/// Most memory of a program, as addresses: bitmaps of many TiB fit.
const MEMORY_BYTES: u64 = 1 << 30;

/// The lowest exit code by which [`TIMER`] says that a program was too slow, could not be started, or ended by a
/// signal.
const NO_ANSWER: i32 = 124;

/// Most bytes of complaints that are kept of a program.
const MOST_COMPLAINTS: u64 = 64 << 10;

/// A program, and what it may reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
    reach: Reach,
}

impl Tool {
    /// A program that only reads the disk. Packages are called as in Debian.
    pub(crate) const fn reader(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            reach: Reach::Disk,
        }
    }

    /// A program that only reads, and opens for writing all the same: it may be given read-only devices alone.
    pub(crate) const fn reader_of_readonly(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            reach: Reach::Readonly,
        }
    }

    /// A program that makes devices.
    pub(crate) const fn device_maker(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            reach: Reach::Devices,
        }
    }
}

/// A disk, or a device over a part of one, that is open for reading only.
#[derive(Debug)]
pub(crate) struct OpenDisk {
    path: PathBuf,
    file: File,
}

impl OpenDisk {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path)?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Runs programs until a moment: one that takes longer waits for a disk that does not answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tools {
    until: Instant,
}

/// A program that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// The beginning of what it wrote to standard error. Bytes of the disk may be in it: it is searched, and never
    /// shown.
    pub(crate) errors: String,
}

/// A program gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// It is not there.
    #[error("{program} is not installed: install the package {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The package that has it, as Debian calls it.
        package: &'static str,
    },
    /// It ended with an error.
    #[error("`{command}` {outcome}: run it to see why")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// The outcome.
        outcome: String,
    },
}

impl Tools {
    pub(crate) fn within(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
        }
    }

    /// Runs a program on a disk, which it finds as [`INPUT`], and gives each line of its output to `take`.
    pub(crate) fn run(
        &self,
        tool: Tool,
        disk: &OpenDisk,
        arguments: &[&str],
        mut take: impl FnMut(&str),
    ) -> Result<Ended, ToolError> {
        let failed = |outcome: String| ToolError::Failed {
            command: words(tool, disk, arguments),
            outcome,
        };
        let mut command = self.command(tool, arguments)?;
        let input = disk.file.try_clone();
        let input = input.map_err(|error| failed(format!("can't be given the disk ({error})")))?;
        command.stdin(input);
        let mut child = in_sandbox(&mut command, &disk.file, tool.reach)
            .map_err(|error| failed(format!("could not be started ({error})")))?;
        let output = child.stdout.take().expect("its output is a pipe");
        let errors = child.stderr.take().expect("its errors are a pipe");
        let errors = std::thread::scope(|scope| {
            let errors = scope.spawn(|| beginning(errors));
            for_lines(output, &mut take);
            errors.join().unwrap_or_default()
        });
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        match status.code() {
            Some(code) if code < NO_ANSWER => Ok(Ended { code, errors }),
            _ => Err(failed(format!("ended with {status}"))),
        }
    }

    /// The same for a program whose answer counts only when it ends well.
    pub(crate) fn lines(
        &self,
        tool: Tool,
        disk: &OpenDisk,
        arguments: &[&str],
        take: impl FnMut(&str),
    ) -> Result<Ended, ToolError> {
        match self.run(tool, disk, arguments, take)? {
            ended @ Ended { code: 0, .. } => Ok(ended),
            Ended { code, .. } => Err(ToolError::Failed {
                command: words(tool, disk, arguments),
                outcome: format!("ended with exit code {code}"),
            }),
        }
    }

    /// The program behind those that limit it.
    fn command(&self, tool: Tool, arguments: &[&str]) -> Result<Command, ToolError> {
        // Less than a second left is one.
        let left = self.until.saturating_duration_since(Instant::now());
        let seconds = left.as_secs().max(1).to_string();
        let mut command = Command::new(found(LIMITER)?);
        command
            .arg(format!("--as={MEMORY_BYTES}"))
            .arg(format!("--cpu={seconds}"))
            // No core file, which would hold what the disk holds. No other file either, though `xfs_repair` insists
            // that it may lift that.
            .args(["--core=0", "--fsize=0:"])
            .arg(found(TIMER)?)
            .args(["-k", GRACE_SECS, &seconds])
            .arg(found(tool)?)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

/// Starts a command from a thread that has closed itself in: what a thread may do, its children may do at most.
fn in_sandbox(command: &mut Command, disk: &File, reach: Reach) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            sandbox::apply(disk, reach)?;
            command.spawn()
        });
        started
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    })
}

fn for_lines(output: impl Read, take: &mut impl FnMut(&str)) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        take(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Reads all, since a program that can't write its complaints stands still, and keeps the beginning.
fn beginning(mut errors: impl Read) -> String {
    let mut kept = Vec::new();
    let _read = errors.by_ref().take(MOST_COMPLAINTS).read_to_end(&mut kept);
    let _rest = io::copy(&mut errors, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

fn found(tool: Tool) -> Result<PathBuf, ToolError> {
    let Tool {
        program, package, ..
    } = tool;
    let mut paths = FOLDERS.iter().map(|folder| Path::new(folder).join(program));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        warn_once(program, package);
        ToolError::Missing { program, package }
    })
}

/// The command as somebody would type it.
fn words(tool: Tool, disk: &OpenDisk, arguments: &[&str]) -> String {
    let path = disk.path.to_string_lossy();
    let arguments = arguments
        .iter()
        .map(|argument| argument.replace(INPUT, &path));
    std::iter::once(tool.program.to_owned())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Each disk of each attempt would say the same.
fn warn_once(program: &'static str, package: &'static str) {
    static TOLD: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let is_news = TOLD
        .lock()
        .expect("no holder of this lock can panic")
        .insert(program);
    if is_news {
        tracing::warn!(
            program,
            package,
            "a program is not installed: free space that it knows of is copied, and what it knows of partitions is not shown"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Tool = Tool::reader("sh", "dash");

    fn disk(content: &str) -> (tempfile::TempDir, OpenDisk) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, content).unwrap();
        let disk = OpenDisk::open(&path).unwrap();
        (directory, disk)
    }

    fn shell(script: &str) -> Result<(Ended, Vec<String>), ToolError> {
        let (_directory, disk) = disk("the disk");
        let mut heard = Vec::new();
        let tools = Tools::within(Duration::from_secs(60));
        let ended = tools.run(SHELL, &disk, &["-c", script], |line| {
            heard.push(line.to_owned());
        })?;
        Ok((ended, heard))
    }

    #[test]
    fn a_program_reads_the_disk_and_one_that_is_missing_or_fails_is_told_apart() {
        let (ended, heard) =
            shell("printf 'a\\nb\\n'; cat /dev/fd/0; echo odd >&2; exit 3").unwrap();
        assert_eq!(heard, ["a", "b", "the disk"]);
        assert_eq!((ended.code, ended.errors.as_str()), (3, "odd\n"));

        let (_directory, disk) = disk("");
        let tools = Tools::within(Duration::from_secs(60));
        let nowhere = Tool::reader("no-such-program", "nowhere");
        let missing = tools.lines(nowhere, &disk, &[], |_| {}).unwrap_err();
        assert!(
            missing.to_string().contains("install the package nowhere"),
            "{missing}"
        );
        let fails = Tool::reader("false", "coreutils");
        let failed = tools.lines(fails, &disk, &[INPUT], |_| {}).unwrap_err();
        let expected = format!(
            "`false {}` ended with exit code 1: run it to see why",
            disk.path().display()
        );
        assert_eq!(failed.to_string(), expected);
    }

    #[test]
    fn a_program_that_ends_by_a_signal_or_takes_too_long_gives_no_answer() {
        for signal in ["SEGV", "FPE", "KILL", "XCPU"] {
            let ended = shell(&format!("echo free; kill -{signal} $$"));
            assert!(matches!(ended, Err(ToolError::Failed { .. })), "{ended:?}");
        }
        let (_directory, disk) = disk("");
        let tools = Tools::within(Duration::from_secs(1));
        let slow = Tool::reader("sleep", "coreutils");
        let ended = tools.run(slow, &disk, &["60"], |_| {});
        assert!(matches!(ended, Err(ToolError::Failed { .. })), "{ended:?}");
    }

    #[test]
    fn a_program_gets_no_environment_and_no_more_than_its_limits() {
        let (_, environment) = shell("/usr/bin/env").unwrap();
        let names: BTreeSet<&str> = environment
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name)
            .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
            .collect();
        assert_eq!(names, BTreeSet::from(["LC_ALL"]), "{environment:?}");

        let (_, limits) =
            shell("ulimit -v; ulimit -c; ulimit -f; grep NoNewPrivs /proc/self/status").unwrap();
        let memory = (MEMORY_BYTES >> 10).to_string();
        assert_eq!(limits, [memory.as_str(), "0", "0", "NoNewPrivs:\t1"]);
    }

    #[test]
    fn a_program_reaches_no_other_file_and_no_network() {
        let (directory, disk) = disk("the disk");
        let other = directory.path().join("other");
        std::fs::write(&other, "a secret").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (other, port) = (other.display(), listener.local_addr().unwrap().port());
        let tools = Tools::within(Duration::from_secs(60));
        // Landlock holds the first three: this needs a kernel with it, as all of the last years have.
        for script in [
            format!("cat {other}"),
            format!("rm {other}"),
            "exec 3<>/dev/fd/0".to_owned(),
            format!("exec 3<>/dev/tcp/127.0.0.1/{port}"),
        ] {
            let bash = Tool::reader("bash", "bash");
            let ended = tools.run(bash, &disk, &["-c", &script], |_| {}).unwrap();
            let is_refused = ["Permission denied", "Operation not permitted"]
                .iter()
                .any(|words| ended.errors.contains(words));
            assert!(ended.code != 0 && is_refused, "{script}: {ended:?}");
        }
    }
}
