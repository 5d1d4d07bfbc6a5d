//! The command line of one tenant.

use std::path::PathBuf;
use std::process::Output;

use anyhow::ensure;
use serde_json::Value;
use store::key::AccessKey;

use super::{Cluster, REGION};
use crate::program;

/// Runs `wherry` commands as the tenant, whose settings are in a profile.
#[derive(Debug, Clone)]
pub struct Shell {
    binary: PathBuf,
    home: PathBuf,
    images: PathBuf,
}

impl Shell {
    pub(super) fn new(cluster: &Cluster, key: &AccessKey) -> anyhow::Result<Self> {
        let home = cluster.path(format!("home-{}", key.id));
        let folder = home.join(".config/wherry");
        std::fs::create_dir_all(&folder)?;
        let profile = format!(
            "[default]\nendpoint = {:?}\naccess_key_id = {:?}\naccess_key_secret = {:?}\nregion = {REGION:?}\n",
            cluster.endpoint(),
            key.id,
            key.secret,
        );
        std::fs::write(folder.join("profiles.toml"), profile)?;
        Ok(Self {
            binary: cluster.binary().to_owned(),
            home,
            images: cluster.images(),
        })
    }

    /// Runs a command, whose words are parted by blanks.
    pub fn run(&self, line: &str) -> anyhow::Result<Output> {
        Ok(program::command(&self.binary)
            .args(line.split(' '))
            .env("HOME", &self.home)
            .env("WHERRY_IMAGE_STORE", &self.images)
            .output()?)
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub fn says(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "wherry {line}: {}\n{said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The document that a command prints for scripts.
    pub fn json(&self, line: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(
            &self.says(&format!("{line} --output json"))?,
        )?)
    }

    /// Runs a command that must fail, and returns its standard error.
    pub fn fails(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        ensure!(
            output.status.code() == Some(1),
            "wherry {line} ended with {}",
            output.status
        );
        Ok(String::from_utf8(output.stderr)?)
    }
}

/// Checks that a text has all of these parts.
pub fn has(text: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}
