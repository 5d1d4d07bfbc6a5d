//! Settings from a file: `--config FILE` in TOML, with the names of the flags without their dashes.
//!
//! A flag stands above the environment, the environment above the file, the file above the defaults. The file's
//! settings are put in front of the flags, as flags; a flag given twice counts as given last. Settings that the
//! environment has are left out of these. clap knows `--config` too, for its help and its errors, and does nothing with
//! it.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, Command, ValueHint};
use toml::Value;

use crate::failure::UsageError;
use crate::secrets;

const FLAG: &str = "config";

/// The commands that take their settings from a file as well: every role.
pub(crate) const ROLES: [&str; 7] = [
    "up",
    "gateway",
    "scheduler",
    "worker",
    "agent",
    "receiver",
    "migrate",
];

/// The command line with `--config` at every role.
pub(crate) fn declared(command: Command) -> Command {
    ROLES.into_iter().fold(command, |command, role| {
        // The build for sources has the agent alone.
        if command.find_subcommand(role).is_none() {
            return command;
        }
        command.mut_subcommand(role, |role| {
            role.arg(
                Arg::new(FLAG)
                    .long(FLAG)
                    .value_name("FILE")
                    .value_hint(ValueHint::FilePath)
                    .help(
                        "File of settings in TOML, with the names of the flags. Flags and environment stand above it",
                    ),
            )
        })
    })
}

/// The arguments with those of the file that `--config` names, and with secrets that come from files.
pub(crate) fn merged(
    arguments: impl Iterator<Item = OsString>,
    command: &Command,
    activation_code: Option<OsString>,
) -> anyhow::Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = arguments.collect();
    secrets::take_code_off_the_command_line(&arguments)?;
    let Some(role) = arguments
        .get(1)
        .and_then(|name| command.find_subcommand(name.to_str()?))
        .filter(|role| ROLES.contains(&role.get_name()))
    else {
        return Ok(arguments);
    };
    let path = config_flag(&arguments);
    let secrets = secrets::flags(role, activation_code, |name| std::env::var_os(name))?;
    arguments.splice(2..2, secrets);
    let Some(path) = path else {
        return Ok(arguments);
    };
    let path = Path::new(&path);
    let text = std::fs::read_to_string(path).map_err(|error| {
        UsageError(format!(
            "can't read the settings in {}: {error}",
            path.display()
        ))
    })?;
    let from_file = as_flags(&text, role, |name| std::env::var_os(name).is_some())
        .map_err(|what| UsageError(format!("{}: {what}", path.display())))?;
    arguments.splice(2..2, from_file.into_iter().map(OsString::from));
    Ok(arguments)
}

/// FILE of `--config FILE` or `--config=FILE`; the last one counts.
fn config_flag(arguments: &[OsString]) -> Option<OsString> {
    let (position, flag) = arguments.iter().enumerate().rev().find(|(_, argument)| {
        argument
            .to_str()
            .is_some_and(|text| text == "--config" || text.starts_with("--config="))
    })?;
    match flag
        .to_str()
        .and_then(|text| text.strip_prefix("--config="))
    {
        Some(path) => Some(path.into()),
        None => arguments.get(position + 1).cloned(),
    }
}

/// The file's settings as flags of the role.
fn as_flags(
    text: &str,
    role: &Command,
    is_set: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    let mut flags = Vec::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        let argument = role
            .get_arguments()
            .find(|argument| argument.get_long() == Some(&name) && name != FLAG)
            .ok_or_else(|| format!("{key:?} is no setting of `wherry {}`", role.get_name()))?;
        if argument
            .get_env()
            .and_then(|env| env.to_str())
            .is_some_and(&is_set)
        {
            continue;
        }
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Boolean(true) => {
                    flags.push(format!("--{name}"));
                    continue;
                }
                Value::Boolean(false) => continue,
                Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                    return Err(format!(
                        "{key:?} must be a text, a number, true, false or a list of those"
                    ));
                }
            };
            flags.push(format!("--{name}={text}"));
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Command {
        crate::cli::command()
            .find_subcommand("worker")
            .unwrap()
            .clone()
    }

    #[test]
    fn settings_become_flags_unless_the_environment_has_them() {
        let text = "slots = 3\nworker_dir = \"/tmp/w\"\nimage-store = \"/tmp/i\"\n";
        let flags = as_flags(text, &worker(), |name| name == "WHERRY_IMAGE_STORE").unwrap();
        assert_eq!(flags, ["--slots=3", "--worker-dir=/tmp/w"]);
    }

    #[test]
    fn a_list_in_the_file_is_a_flag_for_each_of_its_texts() {
        let agent = crate::cli::command()
            .find_subcommand("agent")
            .unwrap()
            .clone();
        let text = "disk = ['/srv/web,1.raw', \"/srv/new\\nline\"]";
        let flags = as_flags(text, &agent, |_| false).unwrap();
        assert_eq!(flags, ["--disk=/srv/web,1.raw", "--disk=/srv/new\nline"]);
    }

    #[test]
    fn what_is_no_setting_is_an_error() {
        for text in ["colour = 1", "slots = {}", "slots =", "config = 'other'"] {
            assert!(as_flags(text, &worker(), |_| false).is_err(), "{text}");
        }
    }

    #[test]
    fn every_role_says_that_it_takes_a_file_and_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, "health = '127.0.0.1:9'\n").unwrap();
        let command = crate::cli::command();
        for role in ROLES.iter().filter(|role| **role != "migrate") {
            let help = command.find_subcommand(role).unwrap().clone();
            let help = help.clone().render_help().to_string();
            assert!(help.contains("--config <FILE>"), "{role}: {help}");
            let line = ["wherry", role, "--config", path.to_str().unwrap()];
            let arguments = merged(line.into_iter().map(OsString::from), &command, None).unwrap();
            assert!(
                arguments.contains(&"--health=127.0.0.1:9".into()),
                "{arguments:?}"
            );
        }
    }
}
