//! `wherry source`: the servers whose agents have registered.

use anyhow::bail;
use clap::Subcommand;
use serde_json::Value;
use service::ExitCode;

use crate::connection::Api;
use crate::output::{self, fields, table, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Source {
    /// Lists all sources, newest first.
    List,
    /// Shows one source.
    Show {
        /// Its id or name.
        source: String,
    },
    /// Makes an activation code, with which agents register as sources of this account. This is the only time at which it is shown.
    ActivationCode {
        /// How many agents may register with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        /// How many days it is valid.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=90))]
        days: u32,
    },
}

impl Source {
    pub(crate) async fn run(self, api: &Api) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                let sources = api.list("DescribeSourceServers", LIST, &[]).await?;
                api.show(&Value::from(sources), |sources| {
                    list(sources.as_array().map_or(&[], Vec::as_slice))
                });
            }
            Self::Show { source } => {
                let found = find(api, &source).await?;
                api.show(&found, show);
            }
            Self::ActivationCode { count, days } => {
                let parameters = [("Count", count), ("TimeToLiveInDays", days)]
                    .map(|(name, value)| (name, value.to_string()));
                let answer = api.client.call("CreateAccessToken", &parameters).await?;
                api.show(&answer, |answer| text(answer, "AccessTokenCode") + "\n");
            }
        }
        Ok(ExitCode::Ok)
    }
}

const LIST: (&str, &str) = ("SourceServers", "SourceServer");

/// The source with this id or name.
pub(crate) async fn find(api: &Api, source: &str) -> anyhow::Result<Value> {
    let by = if source.parse::<domain::SourceId>().is_ok() {
        "SourceId.1"
    } else {
        "Name"
    };
    let found = api
        .list(
            "DescribeSourceServers",
            LIST,
            &[(by.to_owned(), source.to_owned())],
        )
        .await?;
    match found.into_iter().next() {
        Some(found) => Ok(found),
        None => bail!("there is no source {source:?}: `wherry source list` shows all"),
    }
}

fn list(sources: &[Value]) -> String {
    if sources.is_empty() {
        return "No sources yet. Run `wherry agent` on the server that is to be migrated.\n"
            .to_owned();
    }
    let rows: Vec<Vec<String>> = sources
        .iter()
        .map(|source| {
            vec![
                text(source, "SourceId"),
                text(source, "Name"),
                text(source, "State"),
                text(source, "Platform"),
                disks(source),
                text(source, "JobId"),
            ]
        })
        .collect();
    table(
        &["ID", "NAME", "STATE", "PLATFORM", "DISKS (GiB)", "JOB"],
        &rows,
    )
}

fn disks(source: &Value) -> String {
    let data = source["DataDisks"]["DataDisk"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let sizes: Vec<String> = std::iter::once(text(source, "SystemDiskSize"))
        .chain(data.iter().map(|disk| text(disk, "Size")))
        .collect();
    sizes.join(" + ")
}

/// The disks of a source with their sectors, which an image must have as well for the server to start from it.
fn disk_table(source: &Value) -> String {
    let disks = &source["Disks"];
    let data = disks["Data"]["Data"].as_array();
    let rows: Vec<Vec<String>> = std::iter::once(&disks["System"])
        .filter(|system| system.is_object())
        .chain(data.into_iter().flatten())
        .map(|disk| {
            let sectors = (
                disk["LogicalSectorBytes"].as_u64(),
                disk["PhysicalSectorBytes"].as_u64(),
            );
            vec![
                text(disk, "Path"),
                text(disk, "Size"),
                output::sectors(sectors.0, sectors.1),
                text(disk, "PartitionTable"),
            ]
        })
        .collect();
    table(&["DISK", "SIZE (GiB)", "SECTORS", "PARTITION TABLE"], &rows)
}

fn show(source: &Value) -> String {
    let mut shown = fields(&[
        ("Id", text(source, "SourceId")),
        ("Name", text(source, "Name")),
        ("Description", text(source, "Description")),
        ("State", text(source, "State")),
        ("Error", text(source, "ErrorCode")),
        ("Status", text(source, "StatusInfo")),
        (
            "Platform",
            format!(
                "{} {}",
                text(source, "Platform"),
                text(source, "Architecture")
            ),
        ),
        ("Agent", text(source, "AgentVersion")),
        ("Disks (GiB)", disks(source)),
        ("Latest job", text(source, "JobId")),
        ("Created", text(source, "CreationTime")),
        ("System", text(source, "SystemInfo")),
    ]);
    shown.push('\n');
    shown.push_str(&disk_table(source));
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_disks_of_a_source_are_shown_with_sectors_and_table() {
        let source = json!({ "Disks": {
            "System": { "Path": "/dev/sda", "Size": 20, "LogicalSectorBytes": 512, "PhysicalSectorBytes": 4096, "PartitionTable": "gpt" },
            "Data": { "Data": [{ "Path": "/srv/b.raw", "Size": 1 }] },
        }});
        let shown = disk_table(&source);
        let rows: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["/dev/sda", "20", "512/4096", "gpt"]);
        assert_eq!(rows[2], ["/srv/b.raw", "1"]);
    }
}
