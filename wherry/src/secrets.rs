//! Secrets of roles: from files instead of the environment, and never from a command line.
//!
//! For each setting that is a secret, such as `WHERRY_SEAL_KEY` (`--seal-key`), `WHERRY_SEAL_KEY_FILE` names a file that has it. Without
//! that, `seal-key` in `$CREDENTIALS_DIRECTORY` is read, which is where systemd puts credentials. A setting in the environment stands above
//! both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};

use crate::failure::UsageError;

const CODE_VARIABLE: &str = "WHERRY_ACTIVATION_CODE";
const CODE_FLAG: &str = "--activation-code";

/// Takes the activation code out of the environment, so that no program that the agent starts gets it.
///
/// To be called while the process has one thread.
pub(crate) fn take_activation_code() -> Option<OsString> {
    let code = std::env::var_os(CODE_VARIABLE)?;
    #[expect(clippy::disallowed_methods, reason = "there is no other thread yet")]
    // SAFETY: main has started no thread, so nobody else reads the environment.
    unsafe {
        std::env::remove_var(CODE_VARIABLE);
    }
    Some(code)
}

/// Returns the flags of the secrets of `role` that come from files, and of the activation code that came with the environment.
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

/// Refuses an activation code on the command line, which every account of the server sees as long as the agent runs.
pub(crate) fn check(arguments: &[OsString]) -> anyhow::Result<()> {
    let is_code = |argument: &OsString| {
        argument.to_str().is_some_and(|text| {
            text.strip_prefix(CODE_FLAG)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    if arguments.iter().any(is_code) {
        return Err(UsageError(
            "every account of this server sees its command lines: put the activation code into a file and give that with \
             --activation-code-file FILE, or - for standard input"
                .to_owned(),
        )
        .into());
    }
    Ok(())
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
    fn an_activation_code_is_no_flag_and_reaches_the_agent_only() {
        for line in [
            &["agent", "--activation-code", "x"][..],
            &["agent", "--activation-code=x"],
        ] {
            let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
            let error = check(&arguments).unwrap_err().to_string();
            assert!(error.contains("--activation-code-file"), "{error}");
        }
        check(&["agent".into(), "--activation-code-file".into()]).unwrap();
        assert_eq!(
            flags_of("agent", Some("c"), &[]),
            ["--activation-code", "c"]
        );
        assert_eq!(flags_of("worker", Some("c"), &[]), [] as [String; 0]);
    }
}
