//! Secrets of roles: from files instead of the environment, and never from a command line.
//!
//! For each setting that is a secret, such as `WHERRY_SEAL_KEY` (`--seal-key`), `WHERRY_SEAL_KEY_FILE` names a file
//! that has it. Without that, `seal-key` in `$CREDENTIALS_DIRECTORY` is read, which is where systemd puts credentials.
//! A setting in the environment stands above both.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Arg, Command};

use crate::failure::UsageError;
use crate::output;

const CODE_VARIABLE: &str = "WHERRY_ACTIVATION_CODE";
const CODE_FLAG: &str = "--activation-code";

/// Takes the activation code out of the environment, so that no program that the agent starts gets it.
///
/// To be called while the process has one thread.
pub(crate) fn take_activation_code() -> Option<OsString> {
    let code = std::env::var_os(CODE_VARIABLE)?;
    #[expect(clippy::disallowed_methods, reason = "there is no other thread yet")]
    // SAFETY: main has started no thread, so no other thread reads the environment.
    unsafe {
        std::env::remove_var(CODE_VARIABLE);
    }
    Some(code)
}

/// Returns the flags of the secrets of `role` that come from files, and of the activation code that came with the
/// environment.
pub(crate) fn flags(
    role: &Command,
    code: Option<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Vec<OsString>> {
    let mut flags = Vec::new();
    for argument in role.get_arguments() {
        let Some((flag, name)) = secret(argument) else {
            continue;
        };
        if variable(&name).is_some() {
            continue;
        }
        if let Some(path) = file(&flag, &name, &variable) {
            flags.push(read(&flag, &path)?);
        }
    }
    let takes_code = || {
        role.get_arguments()
            .any(|argument| argument.get_long() == CODE_FLAG.strip_prefix("--"))
    };
    if let Some(code) = code.filter(|_| takes_code()) {
        flags.extend([CODE_FLAG.into(), code]);
    }
    Ok(flags)
}

/// Starts this process anew without the activation code on its command line. Every account of the server can read the
/// command line as long as the process runs. The code goes on in the environment, which only the process's own account
/// can read. Returns if there is no code to take off.
///
/// # Errors
/// The program can't be started anew.
pub(crate) fn take_code_off_the_command_line(arguments: &[OsString]) -> anyhow::Result<()> {
    let Some((without, code)) = without_code(arguments) else {
        return Ok(());
    };
    output::warning(
        "every account of this server could read the activation code for a moment: put it into a file and give that with \
         --activation-code-file FILE, or - for standard input",
    );
    let [name, rest @ ..] = without.as_slice() else {
        return Ok(());
    };
    let error = std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(rest)
        .env(CODE_VARIABLE, code)
        .exec();
    Err(error).context("can't start anew without the activation code on the command line: use --activation-code-file")
}

/// Returns the arguments without their activation code, and the code, if they have one.
fn without_code(arguments: &[OsString]) -> Option<(Vec<OsString>, OsString)> {
    let place = arguments.iter().position(is_code_flag)?;
    let mut without = arguments.to_vec();
    let flag = without.remove(place);
    let code = match flag.to_str()?.split_once('=') {
        Some((_, code)) => code.into(),
        None if place < without.len() => without.remove(place),
        // The parser reports a missing setting.
        None => return None,
    };
    Some((without, code))
}

fn is_code_flag(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| {
        text.strip_prefix(CODE_FLAG)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// Flag and variable of a setting that is a secret.
fn secret(argument: &Arg) -> Option<(String, String)> {
    let name = argument.get_env()?.to_str()?;
    argument
        .is_hide_env_values_set()
        .then_some((argument.get_long()?.to_owned(), name.to_owned()))
}

fn file(flag: &str, name: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = variable(&format!("{name}_FILE")) {
        return Some(path.into());
    }
    let path = Path::new(&variable("CREDENTIALS_DIRECTORY")?).join(flag);
    path.exists().then_some(path)
}

fn read(flag: &str, path: &Path) -> anyhow::Result<OsString> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        UsageError(format!(
            "can't read --{flag} from {}: {error}",
            path.display()
        ))
    })?;
    Ok(format!("--{flag}={}", text.trim()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli, config_file};

    fn flags_of(role: &str, code: Option<&str>, variables: &[(&str, &Path)]) -> Vec<String> {
        let command = cli::command();
        let role = command.find_subcommand(role).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.into())
        };
        flags(role, code.map(OsString::from), variable)
            .unwrap()
            .into_iter()
            .map(|flag| flag.into_string().unwrap())
            .collect()
    }

    #[test]
    fn every_secret_of_every_role_can_come_from_a_file_or_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        let command = cli::command();
        let mut found = 0;
        for role in config_file::ROLES {
            let arguments = command.find_subcommand(role).unwrap().get_arguments();
            for (flag, name) in arguments.filter_map(secret) {
                found += 1;
                let path = directory.path().join(&flag);
                std::fs::write(&path, "a secret\n").unwrap();
                let wanted = [format!("--{flag}=a secret")];
                let (named, other) = (format!("{name}_FILE"), path.clone());
                assert_eq!(
                    flags_of(role, None, &[(named.as_str(), path.as_path())]),
                    wanted
                );
                let credentials = [("CREDENTIALS_DIRECTORY", directory.path())];
                assert_eq!(flags_of(role, None, &credentials), wanted);
                let above = [
                    (name.as_str(), Path::new("set")),
                    (named.as_str(), other.as_path()),
                ];
                assert_eq!(flags_of(role, None, &above), [] as [String; 0]);
                std::fs::remove_file(&path).unwrap();
            }
        }
        assert!(found >= 10, "{found}");
    }

    #[test]
    fn a_file_that_can_t_be_read_is_named() {
        let command = cli::command();
        let role = command.find_subcommand("gateway").unwrap();
        let variable = |name: &str| (name == "WHERRY_SEAL_KEY_FILE").then(|| "/nowhere/key".into());
        let error = flags(role, None, variable).unwrap_err().to_string();
        assert!(error.contains("--seal-key from /nowhere/key"), "{error}");
    }

    #[test]
    fn an_activation_code_leaves_the_command_line_and_reaches_the_agent_only() {
        let words = |line: &str| -> Vec<OsString> { line.split(' ').map(OsString::from).collect() };
        for line in [
            "wherry agent --activation-code x --disk d",
            "wherry agent --activation-code=x --disk d",
        ] {
            let taken = without_code(&words(line));
            assert_eq!(taken, Some((words("wherry agent --disk d"), "x".into())));
        }
        for line in [
            "wherry agent --activation-code-file x",
            "wherry agent --activation-code",
        ] {
            assert_eq!(without_code(&words(line)), None, "{line}");
        }
        assert_eq!(
            flags_of("agent", Some("c"), &[]),
            ["--activation-code", "c"]
        );
        assert_eq!(flags_of("worker", Some("c"), &[]), [] as [String; 0]);
    }
}
