//! `wherry source`: the servers whose agents have registered.

use anyhow::bail;
use clap::Subcommand;
use domain::printable;
use service::ExitCode;
use smc::model::{CreateAccessToken, DescribeSourceServers, SourceServer};

use crate::connection::Api;
use crate::output::{self, fields, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Source {
    /// Lists all sources, newest first.
    List,
    /// Shows one source.
    Show {
        /// Its id or name.
        source: String,
    },
    /// Makes an activation code, with which agents register as sources of this account. This is the only time at which
    /// it is shown.
    ActivationCode {
        /// Number of agents that may register with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1000))]
        count: i32,
        /// Number of days for which it is valid.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=90))]
        days: i32,
    },
}

impl Source {
    pub(crate) async fn run(self, api: &Api) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                let sources = api.list(DescribeSourceServers::default()).await?;
                api.show(&sources, |sources| list(sources));
            }
            Self::Show { source } => {
                let found = find(api, &source).await?;
                api.show(&found, show);
            }
            Self::ActivationCode { count, days } => {
                let request = CreateAccessToken {
                    count: Some(count),
                    time_to_live_in_days: Some(days),
                    ..CreateAccessToken::default()
                };
                let made = api.client.call(&request).await?;
                api.show(&made, |made| {
                    format!("{}\n", printable(&made.access_token_code))
                });
            }
        }
        Ok(ExitCode::Ok)
    }
}

/// The source with this id or name.
pub(crate) async fn find(api: &Api, source: &str) -> anyhow::Result<SourceServer> {
    let mut request = DescribeSourceServers::default();
    if source.parse::<domain::SourceId>().is_ok() {
        request.source_id = Some(vec![source.to_owned()]);
    } else {
        request.name = Some(source.to_owned());
    }
    let found = api.list(request).await?;
    match found.into_iter().next() {
        Some(found) => Ok(found),
        None => bail!("there is no source {source:?}: `wherry source list` shows all"),
    }
}

fn list(sources: &[SourceServer]) -> String {
    if sources.is_empty() {
        return "No sources yet. Run `wherry agent` on the server that is to be migrated.\n"
            .to_owned();
    }
    let rows: Vec<Vec<String>> = sources
        .iter()
        .map(|source| {
            vec![
                source.source_id.clone(),
                source.name.clone(),
                source.state.clone(),
                source.platform.clone(),
                disks(source),
                source.job_id.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(
        &["ID", "NAME", "STATE", "PLATFORM", "DISKS (GiB)", "JOB"],
        &rows,
    )
}

fn disks(source: &SourceServer) -> String {
    let data = source.data_disks.iter().map(|disk| disk.size.to_string());
    let system = source.system_disk_size.map(|size| size.to_string());
    let sizes: Vec<String> = std::iter::once(system.unwrap_or_default())
        .chain(data)
        .collect();
    sizes.join(" + ")
}

/// The disks of a source with their sectors, which an image must have as well for the server to start from it.
fn disk_table(source: &SourceServer) -> String {
    let disks = &source.disks;
    let rows: Vec<Vec<String>> = disks
        .system
        .iter()
        .chain(disks.data.iter())
        .map(|disk| {
            let sectors = [disk.logical_sector_bytes, disk.physical_sector_bytes];
            let [logical, physical] = sectors.map(|bytes| bytes.map(u64::from));
            vec![
                disk.path.clone(),
                disk.size.to_string(),
                output::sectors(logical, physical),
                disk.partition_table.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["DISK", "SIZE (GiB)", "SECTORS", "PARTITION TABLE"], &rows)
}

fn show(source: &SourceServer) -> String {
    let mut shown = fields(&[
        ("Id", source.source_id.clone()),
        ("Name", source.name.clone()),
        ("Description", source.description.clone()),
        ("State", source.state.clone()),
        ("Error", source.error_code.clone()),
        ("Status", source.status_info.clone().unwrap_or_default()),
        (
            "Platform",
            format!("{} {}", source.platform, source.architecture),
        ),
        ("Agent", source.agent_version.clone()),
        ("Disks (GiB)", disks(source)),
        ("Latest job", source.job_id.clone().unwrap_or_default()),
        ("Created", source.creation_time.clone()),
        ("System", source.system_info.clone()),
    ]);
    shown.push('\n');
    shown.push_str(&disk_table(source));
    shown
}

#[cfg(test)]
mod tests {
    use smc::model::{SourceDisks, SourceWholeDisk};

    use super::*;

    #[test]
    fn the_disks_of_a_source_are_shown_with_sectors_and_table() {
        let system = SourceWholeDisk {
            path: "/dev/sda".to_owned(),
            size: 20,
            logical_sector_bytes: Some(512),
            physical_sector_bytes: Some(4096),
            partition_table: Some("gpt".to_owned()),
            ..SourceWholeDisk::default()
        };
        let data = SourceWholeDisk {
            path: "/srv/b.raw".to_owned(),
            size: 1,
            ..SourceWholeDisk::default()
        };
        let source = SourceServer {
            disks: SourceDisks {
                system: Some(system),
                data: [data].into_iter().collect(),
            },
            ..SourceServer::default()
        };
        let shown = disk_table(&source);
        let rows: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["/dev/sda", "20", "512/4096", "gpt"]);
        assert_eq!(rows[2], ["/srv/b.raw", "1"]);
    }
}
