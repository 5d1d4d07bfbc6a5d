//! Checks that no file of `deploy/` puts a secret into an environment or onto a command line. Each secret is a file,
//! and reaches only the service that it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{environment, read, root, yaml};

/// Directory in which a container finds its secrets.
const SECRETS: &str = "/run/secrets/";

/// Words in the name of a variable that is a secret, also of programs that are not ours.
const SECRET_WORDS: [&str; 6] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"];

/// The secrets of a role: flag and variable.
pub(super) fn secrets_of(role: &clap::Command) -> Vec<(String, String)> {
    role.get_arguments()
        .filter(|argument| argument.is_hide_env_values_set())
        .filter_map(|argument| {
            let variable = argument.get_env()?.to_str()?;
            Some((argument.get_long()?.to_owned(), variable.to_owned()))
        })
        .collect()
}

/// Sentences about how a unit treats the secrets of the role that it starts.
pub(super) fn faults_of_unit(unit: &str, role: &clap::Command) -> Vec<String> {
    let mut faults = Vec::new();
    let credentials: BTreeSet<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("LoadCredential=")?.split(':').next())
        .collect();
    let secrets = secrets_of(role);
    for (flag, variable) in &secrets {
        if !credentials.contains(flag.as_str()) {
            faults.push(format!("{flag} is no credential"));
        }
        if unit.contains(variable.as_str()) {
            faults.push(format!("{variable} is in the environment"));
        }
    }
    for name in credentials {
        if !secrets.iter().any(|(flag, _)| flag == name) {
            faults.push(format!("{name} is no secret of {}", role.get_name()));
        }
    }
    for line in ["ProtectProc=invisible", "UMask=0077", "NoNewPrivileges=yes"] {
        if !unit.lines().any(|found| found == line) {
            faults.push(format!("{line} is missing"));
        }
    }
    if unit.contains("WHERRY_ACTIVATION_CODE=") || unit.contains("--activation-code ") {
        faults.push("the activation code is not in a file".to_owned());
    }
    faults
}

#[test]
fn a_unit_that_gives_secrets_away_is_found_out() {
    let command = crate::cli::command();
    let sound = read("deploy/systemd/wherry@.service");
    let gateway = command.find_subcommand("gateway").expect("a role");
    for (from, to, says) in [
        (
            "LoadCredential=seal-key:",
            "LoadCredential=seal:",
            "seal-key is no credential",
        ),
        (
            "LoadCredential=seal-key:",
            "LoadCredential=seal:",
            "seal is no secret",
        ),
        (
            "ExecStart=",
            "Environment=WHERRY_SEAL_KEY=00\nExecStart=",
            "in the environment",
        ),
        ("ProtectProc=invisible\n", "", "ProtectProc"),
    ] {
        let broken = sound.replacen(from, to, 1);
        assert_ne!(broken, sound, "{from} is not in the file any more");
        let faults = faults_of_unit(&broken, gateway);
        assert!(
            faults.iter().any(|fault| fault.contains(says)),
            "{to}: {faults:?}"
        );
    }
}

/// The variables of all commands that are secrets.
pub(super) fn variables() -> impl Iterator<Item = String> {
    let command = crate::cli::command();
    let secrets: BTreeSet<String> = command
        .get_subcommands()
        .flat_map(secrets_of)
        .map(|(_, variable)| variable)
        .collect();
    secrets.into_iter()
}

/// Returns true if a variable of this name holds a secret, or names the file of one.
fn is_secret(name: &str) -> bool {
    variables().any(|variable| name.starts_with(variable.as_str()))
        || SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The secrets that a service is given: name and place in the container.
fn given(service: &Value) -> BTreeMap<String, String> {
    let secrets = service["secrets"].as_array().into_iter().flatten();
    secrets
        .filter_map(|secret| {
            let name = secret.as_str().or_else(|| secret["source"].as_str())?;
            let target = secret["target"].as_str();
            let place = target.map_or_else(|| format!("{SECRETS}{name}"), str::to_owned);
            Some((name.to_owned(), place))
        })
        .collect()
}

/// Sentences about how a service of the compose file treats its secrets.
fn faults_of_service(service: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let given = given(service);
    let mut read = BTreeSet::new();
    for (name, value) in environment(service) {
        if value.contains("${") && is_secret(&value) || value.contains("://") && value.contains('@')
        {
            faults.push(format!("{name} has a secret in it"));
        }
        if !is_secret(&name) {
            continue;
        }
        let place = given.iter().find(|(_, place)| **place == value);
        match place {
            Some((secret, _)) if name.ends_with("_FILE") => drop(read.insert(secret.clone())),
            _ => faults.push(format!(
                "{name} names no file of a secret that the service is given"
            )),
        }
    }
    for (secret, place) in &given {
        if place.starts_with(SECRETS) && !read.contains(secret) {
            faults.push(format!("{secret} is given to it, and no setting names it"));
        }
    }
    let words = [&service["command"], &service["entrypoint"]];
    for word in words.iter().filter_map(|words| words.as_array()).flatten() {
        let text = word.as_str().unwrap_or_default();
        let name = text
            .trim_start_matches('-')
            .replace('-', "_")
            .to_uppercase();
        if is_secret(&name) || is_secret(&format!("WHERRY_{name}")) {
            faults.push(format!("{text} is on its command line"));
        }
    }
    let role = service["command"][0].as_str();
    let command = crate::cli::command();
    if let Some(role) = role.and_then(|role| command.find_subcommand(role)) {
        let wanted: BTreeSet<String> = secrets_of(role).into_iter().map(|(flag, _)| flag).collect();
        let has: BTreeSet<String> = given.into_keys().collect();
        if wanted != has {
            faults.push(format!("it is given {has:?} and needs {wanted:?}"));
        }
    }
    faults
}

/// Sentences about the secrets of a compose file, for which `made` are the files of `make-secrets`.
fn faults_of_compose(compose: &Value, made: &BTreeSet<String>) -> Vec<String> {
    let services = compose["services"].as_object().expect("services");
    let mut faults = Vec::new();
    for (name, service) in services {
        faults.extend(
            faults_of_service(service)
                .into_iter()
                .map(|fault| format!("{name}: {fault}")),
        );
        for secret in given(service).into_keys() {
            if compose["secrets"][&secret]["file"] != format!("./secrets/{secret}") {
                faults.push(format!("{name}: {secret} is no file of ./secrets"));
            }
            if !made.contains(&secret) {
                faults.push(format!("{name}: make-secrets makes no {secret}"));
            }
        }
    }
    faults
}

/// Runs `make-secrets` and returns the names of what it makes.
fn make_secrets(directory: &Path) -> BTreeSet<String> {
    let done = Command::new(root().join("deploy/make-secrets"))
        .arg(directory)
        .status();
    assert!(done.expect("bash is there").success());
    let names = std::fs::read_dir(directory).expect("a directory");
    names
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect()
}

#[test]
fn compose_gives_secrets_as_files_and_to_those_alone_that_need_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().join("secrets");
    let made = make_secrets(&directory);
    let compose = yaml(&read("deploy/compose.yaml"));
    assert_eq!(faults_of_compose(&compose, &made), [""; 0]);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);

    let text = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a secret");
    let before: Vec<String> = made.iter().map(|name| text(name)).collect();
    assert_eq!(make_secrets(&directory), made);
    let after: Vec<String> = made.iter().map(|name| text(name)).collect();
    assert_eq!(before, after, "what is there stays");
    for role in ["migrate", "gateway", "scheduler", "worker"] {
        let command = crate::cli::command();
        let secrets = secrets_of(command.find_subcommand(role).expect("a role"));
        let flags = secrets
            .iter()
            .map(|(flag, _)| format!("--{flag}={}", text(flag)));
        let others = ["wherry".to_owned(), role.to_owned()];
        let parsed = crate::cli::command().try_get_matches_from(others.into_iter().chain(flags));
        // Other settings may be missing, a value that is no secret may not.
        let kind = parsed.err().map(|error| error.kind());
        assert!(
            matches!(
                kind,
                None | Some(clap::error::ErrorKind::MissingRequiredArgument)
            ),
            "{role}: {kind:?}"
        );
    }
}

#[test]
fn a_compose_file_that_gives_secrets_away_is_found_out() {
    let sound = read("deploy/compose.yaml");
    let names =
        "database-url nats-url seal-key postgres-password nats-authorization grafana-password";
    let made: BTreeSet<String> = names.split(' ').map(str::to_owned).collect();
    for (from, to, says) in [
        (
            "WHERRY_SEAL_KEY_FILE: /run/secrets/seal-key",
            "WHERRY_SEAL_KEY: 00",
            "WHERRY_SEAL_KEY names no file",
        ),
        (
            "WHERRY_REGION: ${WHERRY_REGION:-cn-wherry}",
            "WHERRY_REGION: ${NATS_PASSWORD}",
            "has a secret in it",
        ),
        (
            "WHERRY_REGION: ${WHERRY_REGION:-cn-wherry}",
            "WHERRY_REGION: nats://a:b@nats",
            "has a secret in it",
        ),
        (
            "command: [scheduler]",
            "command: [scheduler, --seal-key=00]",
            "on its command line",
        ),
        (
            "POSTGRES_PASSWORD_FILE: /run/secrets/postgres-password",
            "POSTGRES_PASSWORD: a",
            "POSTGRES_PASSWORD names",
        ),
        (
            "secrets: [database-url]",
            "secrets: [database-url, seal-key]",
            "no setting names it",
        ),
        (
            "secrets: [database-url, nats-url, seal-key]",
            "secrets: [database-url, nats-url]",
            "and needs",
        ),
        (
            "file: ./secrets/seal-key",
            "environment: SEAL_KEY",
            "no file of ./secrets",
        ),
        (
            "secrets: [grafana-password]",
            "secrets: [grafana]",
            "makes no grafana",
        ),
    ] {
        let broken = sound.replacen(from, to, 1);
        assert_ne!(broken, sound, "{from} is not in the file any more");
        let faults = faults_of_compose(&yaml(&broken), &made);
        assert!(
            faults.iter().any(|fault| fault.contains(says)),
            "{to}: {faults:#?}"
        );
    }
}

#[test]
fn compose_asks_for_no_secret_and_the_image_has_none() {
    for name in super::asked_for() {
        assert!(!is_secret(&name), ".env.example asks for {name}");
    }
    let dockerfile = read("deploy/Dockerfile");
    for line in dockerfile
        .lines()
        .filter(|line| line.starts_with("ENV ") || line.starts_with("ARG "))
    {
        assert!(!is_secret(line), "{line}");
    }
}
