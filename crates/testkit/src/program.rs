//! The `wherry` binary as a command, and the processes that come of it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rand::RngExt as _;

/// Variables that locate the servers' programs: the only settings that tests take from a developer's shell.
const KEPT: [&str; 2] = ["WHERRY_PG_BIN", "WHERRY_NATS_SERVER"];

/// The program without any of the settings and profiles that the caller's shell has.
pub fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_setting = ["WHERRY_", "ALIBABA_CLOUD_", "OTEL_"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if is_setting && !KEPT.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    command.env("HOME", "/nonexistent");
    // No test depends on how full the disk is on which it runs.
    command.env("WHERRY_RESERVE_MIB", "0");
    command
}

/// Ports below those that the kernel gives to outgoing connections, so that a client can't take one that was free a
/// moment ago.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A loopback address that was free a moment ago.
pub fn free_address() -> anyhow::Result<String> {
    for _ in 0..100 {
        let port = rand::rng().random_range(PORTS);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?.to_string());
        }
    }
    anyhow::bail!("a hundred ports in {PORTS:?} were taken")
}

/// A process and all that descend from it, itself first.
pub fn family(root: i32) -> Vec<i32> {
    let all: Vec<i32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut family = vec![root];
    let mut looked_at = 0;
    while let Some(&member) = family.get(looked_at) {
        family.extend(all.iter().filter(|&&id| parent_of(id) == Some(member)));
        looked_at += 1;
    }
    family
}

/// The parent of a process that runs.
pub fn parent_of(id: i32) -> Option<i32> {
    stat(id)?.split(' ').nth(1)?.parse().ok()
}

/// Returns true if a process has ended. A process that was not waited for yet is gone, too.
pub fn is_gone(id: i32) -> bool {
    stat(id).is_none_or(|stat| stat.starts_with('Z'))
}

/// State, parent and so on: what follows the name, which may hold blanks and brackets.
fn stat(id: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_family_until_it_is_gone() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        assert!(family(own).contains(&id) && parent_of(id) == Some(own) && !is_gone(id));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(id) && !family(own).contains(&id));
    }
}
