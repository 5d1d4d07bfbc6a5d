//! Running the programs that own partition tables and file systems.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest wait for a program after it was asked to end.
const GRACE_SECS: &str = "2";

/// What `timeout` says of a program that could not be found, or could not be started.
const NOT_FOUND: i32 = 127;
const NOT_STARTED: i32 = 126;

/// A program, and the package that has it, as Debian calls it.
pub(in crate::disk) type Tool = (&'static str, &'static str);

/// Runs programs until a moment: one that takes longer waits for a disk that does not answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::disk) struct Tools {
    until: Instant,
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
        /// What became of it.
        outcome: String,
    },
}

impl Tools {
    pub(in crate::disk) fn within(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
        }
    }

    /// Runs a program of a package and gives each line of its output to `take`; answers with its exit code. Its own words of complaint are dropped.
    pub(in crate::disk) fn run(
        &self,
        (program, package): Tool,
        arguments: &[&OsStr],
        mut take: impl FnMut(&str),
    ) -> Result<i32, ToolError> {
        // Less than a second left is one.
        let seconds = self
            .until
            .saturating_duration_since(Instant::now())
            .as_secs()
            .max(1);
        let mut command = Command::new("timeout");
        command
            .args(["-k", GRACE_SECS, &seconds.to_string(), program])
            .args(arguments)
            .env("LC_ALL", "C")
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let failed = |outcome: String| ToolError::Failed {
            command: words(program, arguments),
            outcome,
        };
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("could not be started with `timeout` ({error})")))?;
        let mut output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            take(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        match status.code() {
            Some(NOT_FOUND | NOT_STARTED) => {
                tell_once(program, package);
                Err(ToolError::Missing { program, package })
            }
            Some(code) => Ok(code),
            None => Err(failed(format!("ended with {status}"))),
        }
    }

    /// The same for a program whose answer counts only when it ends well.
    pub(in crate::disk) fn lines(
        &self,
        tool: Tool,
        arguments: &[&OsStr],
        take: impl FnMut(&str),
    ) -> Result<(), ToolError> {
        match self.run(tool, arguments, take)? {
            0 => Ok(()),
            code => Err(ToolError::Failed {
                command: words(tool.0, arguments),
                outcome: format!("ended with exit code {code}"),
            }),
        }
    }
}

/// The folders of system programs are not on everybody's path.
fn path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

fn words(program: &str, arguments: &[&OsStr]) -> String {
    let arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    std::iter::once(program.into())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Each disk of each attempt would say the same.
fn tell_once(program: &'static str, package: &'static str) {
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

    #[test]
    fn a_program_is_heard_and_one_that_is_missing_or_fails_is_told_apart() {
        let tools = Tools::within(Duration::from_secs(60));
        let mut heard = Vec::new();
        let hear = |line: &str| heard.push(line.to_owned());
        tools
            .lines(("printf", "coreutils"), &["a\nb".as_ref()], hear)
            .unwrap();
        assert_eq!(heard, ["a", "b"]);
        let missing = tools
            .lines(("no-such-program", "nowhere"), &[], |_| {})
            .unwrap_err();
        assert!(
            missing.to_string().contains("install the package nowhere"),
            "{missing}"
        );
        let failed = tools
            .lines(("false", "coreutils"), &["x".as_ref()], |_| {})
            .unwrap_err();
        assert_eq!(
            failed.to_string(),
            "`false x` ended with exit code 1: run it to see why"
        );
        assert_eq!(tools.run(("false", "coreutils"), &[], |_| {}), Ok(1));
    }
}
