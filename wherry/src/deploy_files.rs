//! Checks that this program understands everything in `deploy/`: commands, settings, files. The checks need no
//! container engine.

mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::secrets::faults_of_unit;

/// The image of every role in the compose file.
const IMAGE: &str = "wherry:";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Sample values for settings that people fill in, and for secrets.
fn filled_in(name: &str) -> &'static str {
    match name {
        "WHERRY_SEAL_KEY" => "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "WHERRY_PUBLIC_NAME" => "migrate.example",
        _ => "secret",
    }
}

/// Names of `.env.example`: the settings that compose requires from the user.
fn asked_for() -> BTreeSet<String> {
    settings_in(&read("deploy/.env.example"))
        .into_keys()
        .collect()
}

fn settings_in(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(|line| line.trim_start_matches('#').trim())
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_uppercase() || letter == '_')
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A value with every `${NAME:-default}` and `${NAME:?why}` replaced.
fn interpolated(text: &str, asked_for: &BTreeSet<String>) -> Result<String, String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        let (inside, after) = behind
            .split_once('}')
            .ok_or_else(|| format!("{text}: a brace is open"))?;
        whole.push_str(before);
        if let Some((_, default)) = inside.split_once(":-") {
            whole.push_str(default);
        } else {
            let name = inside.split_once(":?").map_or(inside, |(name, _)| name);
            if !asked_for.contains(name) {
                return Err(format!("{name} is not in .env.example"));
            }
            whole.push_str(filled_in(name));
        }
        rest = after;
    }
    Ok(whole + rest)
}

/// The names and values of a service's environment.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let set = service["environment"].as_object().into_iter().flatten();
    // Without a value, a variable is passed on if it is set.
    for (name, value) in set.filter(|(_, value)| !value.is_null()) {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        environment.insert(name.clone(), text);
    }
    environment
}

/// Every variable that some command of ours reads.
fn known_variables() -> BTreeSet<String> {
    fn collect(command: &clap::Command, into: &mut BTreeSet<String>) {
        into.extend(
            command
                .get_arguments()
                .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())),
        );
        for below in command.get_subcommands() {
            collect(below, into);
        }
    }
    let mut known = BTreeSet::new();
    collect(&crate::cli::command(), &mut known);
    known
}

/// Parses a command as the program does. Its variables are given as flags, since tests share one environment.
fn parses(words: &[String], environment: &BTreeMap<String, String>) -> Result<(), String> {
    let mut known = known_variables();
    known.extend(secrets::variables().map(|name| format!("{name}_FILE")));
    if let Some(name) = environment
        .keys()
        .find(|name| name.starts_with("WHERRY_") && !known.contains(*name))
    {
        return Err(format!("{name} is no setting of any command"));
    }
    let command = crate::cli::command();
    let role = words
        .first()
        .and_then(|name| command.find_subcommand(name))
        .ok_or_else(|| format!("{words:?} is no command"))?;
    let mut line = vec!["wherry".to_owned(), words[0].clone()];
    for argument in role.get_arguments() {
        let name = argument.get_env().and_then(|name| name.to_str());
        let value = name.and_then(|name| {
            let in_file = || environment.contains_key(&format!("{name}_FILE"));
            let set = environment.get(name).map(String::as_str);
            set.or_else(|| in_file().then(|| filled_in(name)))
        });
        if let (Some(flag), Some(value)) = (argument.get_long(), value) {
            line.push(format!("--{flag}={value}"));
        }
    }
    line.extend_from_slice(&words[1..]);
    crate::cli::command()
        .try_get_matches_from(line)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Sentences about what is wrong in a compose file whose paths are relative to `deploy/`.
fn faults_of_compose(compose: &Value, asked_for: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let volumes = &compose["volumes"];
    let Some(services) = compose["services"].as_object() else {
        return vec!["there are no services".to_owned()];
    };
    for (name, service) in services {
        let mut fault = |what: String| faults.push(format!("{name}: {what}"));
        let mut values = BTreeMap::new();
        for (variable, value) in environment(service) {
            match interpolated(&value, asked_for) {
                Ok(value) => drop(values.insert(variable, value)),
                Err(what) => fault(what),
            }
        }
        if service["image"]
            .as_str()
            .is_some_and(|image| image.starts_with(IMAGE))
        {
            let words: Vec<String> = service["command"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect();
            if let Err(what) = parses(&words, &values) {
                fault(what);
            }
            let file = service["build"]["dockerfile"].as_str().unwrap_or_default();
            let context = service["build"]["context"].as_str().unwrap_or_default();
            if !root().join("deploy").join(context).join(file).is_file() {
                fault(format!("there is no {file} in {context}"));
            }
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let text = volume.as_str().unwrap_or_default();
            let from = text.split(':').next().unwrap_or_default();
            let is_there = if from.starts_with('.') {
                root().join("deploy").join(from).exists()
            } else {
                volumes.get(from).is_some()
            };
            if !is_there {
                fault(format!("{from} is mounted and is not there"));
            }
        }
        let depends = match &service["depends_on"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            Value::Object(names) => names.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        for other in depends {
            if !services.contains_key(other) {
                fault(format!("it waits for {other}, which is no service"));
            }
        }
    }
    faults
}

/// YAML with `<<:` and anchors resolved.
fn yaml(text: &str) -> Value {
    let mut value: serde_norway::Value = serde_norway::from_str(text).expect("YAML");
    value.apply_merge().expect("merges of maps");
    serde_json::to_value(value).expect("YAML of strings, numbers, lists and maps")
}

#[test]
fn compose_starts_commands_with_settings_and_files_that_exist() {
    let compose = yaml(&read("deploy/compose.yaml"));
    let faults = faults_of_compose(&compose, &asked_for());
    assert!(faults.is_empty(), "{faults:#?}");
    let ours: BTreeSet<&str> = compose["services"]
        .as_object()
        .expect("services")
        .iter()
        .filter_map(|(_, service)| service["command"][0].as_str())
        .collect();
    for role in ["migrate", "gateway", "scheduler", "worker"] {
        assert!(ours.contains(role), "compose has no {role}");
    }
}

#[test]
fn a_wrong_compose_file_is_found_out() {
    let sound = read("deploy/compose.yaml");
    for (from, to, says) in [
        ("command: [worker]", "command: [wurker]", "no command"),
        (
            "command: [worker]",
            "command: [worker, --sluts=3]",
            "--sluts",
        ),
        ("WHERRY_WORKER_DIR", "WHERRY_WORKER_DIRECTORY", "no setting"),
        (
            "WHERRY_API: 0.0.0.0:8700",
            "WHERRY_API: everywhere",
            "everywhere",
        ),
        ("./nats/nats.conf:", "./nats/gone.conf:", "gone.conf"),
        ("{WHERRY_PUBLIC_NAME:?", "{WHERRY_NAME:?", "WHERRY_NAME"),
        (
            "WHERRY_SEAL_KEY_FILE: /run",
            "WHERRY_SEAL_FILE: /run",
            "WHERRY_SEAL_FILE is no setting",
        ),
        (
            "dockerfile: deploy/Dockerfile",
            "dockerfile: Dockerfile",
            "no Dockerfile",
        ),
        ("worker:/var/lib", "wurker:/var/lib", "wurker is mounted"),
        ("nats: { condition", "nots: { condition", "no service"),
    ] {
        let broken = sound.replacen(from, to, 1);
        assert_ne!(broken, sound, "{from} is not in the file any more");
        let faults = faults_of_compose(&yaml(&broken), &asked_for());
        assert!(
            faults.iter().any(|fault| fault.contains(says)),
            "{to}: {faults:#?}"
        );
    }
}

/// Sentences about what is wrong in a Dockerfile that is built at the root of the repository.
fn faults_of_dockerfile(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut user = "root";
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", ..] => user = "root",
            ["USER", name] => user = name,
            ["COPY", paths @ ..] if !paths.iter().any(|path| path.starts_with("--from")) => {
                let sources = paths.split_last().map_or(&[][..], |(_, sources)| sources);
                faults.extend(
                    sources
                        .iter()
                        .filter(|path| !root().join(path).exists())
                        .map(|path| format!("{path} is copied and is not there")),
                );
            }
            _ => {}
        }
    }
    if matches!(user.split(':').next(), Some("root" | "0")) {
        faults.push("the image runs as root".to_owned());
    }
    let entry = text.lines().rfind(|line| line.starts_with("ENTRYPOINT"));
    if entry != Some(r#"ENTRYPOINT ["wherry"]"#) {
        faults.push("the commands of compose are those of `wherry`".to_owned());
    }
    faults
}

#[test]
fn the_image_is_made_of_what_is_there_and_does_not_run_as_root() {
    let dockerfile = read("deploy/Dockerfile");
    assert_eq!(faults_of_dockerfile(&dockerfile), [""; 0]);
    let toolchain = read("Cargo.toml");
    let version = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("Cargo.toml says which Rust it needs");
    assert!(
        dockerfile.contains(&format!("FROM rust:{}", version.trim_matches('"'))),
        "it builds with another Rust than {version}"
    );
    for (from, to, says) in [
        ("USER wherry", "USER root", "as root"),
        ("USER wherry\n", "", "as root"),
        ("COPY . .", "COPY sources .", "sources is copied"),
        ("[\"wherry\"]", "[\"sh\"]", "commands of compose"),
    ] {
        let faults = faults_of_dockerfile(&dockerfile.replacen(from, to, 1));
        assert!(
            faults.iter().any(|fault| fault.contains(says)),
            "{to}: {faults:?}"
        );
    }
}

#[test]
fn the_build_is_sent_everything_but_what_git_ignores() {
    let ignored: BTreeSet<String> = read(".gitignore")
        .lines()
        .map(|line| line.trim_matches('/').to_owned())
        .collect();
    let kept_out: Vec<String> = read(".dockerignore")
        .lines()
        .map(|line| line.trim_start_matches("**/").trim_matches('/').to_owned())
        .collect();
    for path in &kept_out {
        assert!(
            path == ".git" || ignored.contains(path),
            "{path} is in the repository, but kept out of the image's build"
        );
    }
    for path in &ignored {
        assert!(
            kept_out.contains(path),
            "{path} is sent to the image's build, though it is no source"
        );
    }
}

const UNITS: [&str; 3] = [
    "wherry@.service",
    "wherry-worker.service",
    "wherry-agent.service",
];

#[test]
fn the_worker_runs_as_a_user_of_its_own() {
    let user = |unit: &str| {
        let text = read(&format!("deploy/systemd/{unit}"));
        let user = text.lines().find_map(|line| line.strip_prefix("User="));
        user.expect("a user").to_owned()
    };
    assert_ne!(user("wherry-worker.service"), user("wherry@.service"));
}

#[test]
fn systemd_units_run_commands_with_settings_that_exist() {
    let known = known_variables();
    for unit in UNITS {
        let text = read(&format!("deploy/systemd/{unit}"));
        let start = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .expect("a unit starts something");
        let mut words = start.split_whitespace();
        assert_eq!(words.next(), Some("/usr/local/bin/wherry"), "{unit}");
        let roles = match words.next() {
            Some("%i") => vec!["gateway", "scheduler"],
            Some(role) => vec![role],
            None => panic!("{unit} names no command"),
        };
        let command = crate::cli::command();
        for role in roles {
            let role = command
                .find_subcommand(role)
                .unwrap_or_else(|| panic!("{unit}: {role}"));
            assert_eq!(faults_of_unit(&text, role), [""; 0], "{unit}");
        }
        for name in text
            .lines()
            .filter_map(|line| line.strip_prefix("Environment="))
            .flat_map(|line| settings_in(&line.replace(' ', "\n")).into_keys())
        {
            assert!(
                known.contains(&name) || !name.starts_with("WHERRY_"),
                "{unit}: {name}"
            );
        }
    }
    for name in settings_in(&read("deploy/systemd/wherry.env.example")).into_keys() {
        assert!(known.contains(&name), "wherry.env.example: {name}");
        let is_secret = secrets::variables().any(|variable| variable == name);
        assert!(!is_secret, "wherry.env.example: {name} is a secret");
    }
}
