//! `wherry job modify`.

use clap::Args;
use domain::parameters::ReplicationParameters;

use super::tuning::Tuning;
use super::{data_disk, find};
use crate::connection::Api;
use crate::failure::UsageError;
use crate::output::text;

#[derive(Debug, Args)]
pub(crate) struct Modify {
    /// Id or name of the job.
    job: String,
    /// The new name.
    #[arg(long)]
    name: Option<String>,
    /// The new description.
    #[arg(long)]
    description: Option<String>,
    /// Name of the image.
    #[arg(long)]
    image_name: Option<String>,
    /// Size of the image's system disk in GiB.
    #[arg(long, value_name = "GIB")]
    system_disk_size: Option<u64>,
    /// Size of a data disk of the image, as INDEX:GIB. Others keep theirs.
    #[arg(long, value_name = "INDEX:GIB", value_parser = data_disk)]
    data_disk: Vec<(u64, u64)>,
    /// When the job starts by itself, as YYYY-MM-DDThh:mm:ssZ.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Until when the job may be started, as YYYY-MM-DDThh:mm:ssZ: 7 to 90 days after it was created.
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
    /// Hours from one run to the next, 1 to 168.
    #[arg(long, value_name = "HOURS")]
    every: Option<u64>,
    /// Images that are kept, 1 to 10.
    #[arg(long, value_name = "N")]
    keep: Option<u64>,
    #[command(flatten)]
    tuning: Tuning,
}

impl Modify {
    pub(super) async fn run(self, api: &Api) -> anyhow::Result<()> {
        let job = find(api, &self.job).await?;
        let id = text(&job, "JobId");
        let present = ReplicationParameters::parse(&text(&job, "ReplicationParameters"))?;
        let changes = self.changes(&present);
        if changes.is_empty() {
            let what = "give what to change, such as --bandwidth-limit 200mbit: see `wherry job modify --help`";
            return Err(UsageError(what.to_owned()).into());
        }
        let mut parameters = vec![("JobId".to_owned(), id.clone())];
        parameters.extend(changes);
        let answer = api
            .client
            .call("ModifyReplicationJobAttribute", &parameters)
            .await?;
        api.show(&answer, |_| format!("Job {id} is changed.\n"));
        Ok(())
    }

    fn changes(&self, present: &ReplicationParameters) -> Vec<(String, String)> {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let plain = [
            ("Name", self.name.clone()),
            ("Description", self.description.clone()),
            ("ImageName", self.image_name.clone()),
            ("SystemDiskSize", number(self.system_disk_size)),
            ("ScheduledStartTime", self.at.clone()),
            ("ValidTime", self.valid_until.clone()),
            ("Frequency", number(self.every)),
            ("MaxNumberOfImageToKeep", number(self.keep)),
            ("ReplicationParameters", self.tuning.applied_to(present)),
        ];
        let plain = plain
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let disks = (1..)
            .zip(&self.data_disk)
            .flat_map(|(number, (index, gib))| {
                [
                    (format!("DataDisk.{number}.Index"), index.to_string()),
                    (format!("DataDisk.{number}.Size"), gib.to_string()),
                ]
            });
        plain.chain(disks).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        modify: Modify,
    }

    #[test]
    fn each_flag_is_a_parameter_of_the_api() {
        let line = "modify web --name web-2 --data-disk 1:40 --every 12 --bandwidth-limit 1gbit";
        let modify = Only::parse_from(line.split(' ')).modify;
        let present = ReplicationParameters::parse(r#"{"checksum":true}"#).unwrap();
        let expected = [
            ("Name", "web-2"),
            ("Frequency", "12"),
            (
                "ReplicationParameters",
                r#"{"bandwidth_limit":1000000,"checksum":true}"#,
            ),
            ("DataDisk.1.Index", "1"),
            ("DataDisk.1.Size", "40"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(modify.changes(&present), expected);
        let nothing = Only::parse_from(["modify", "web"]).modify;
        assert!(nothing.changes(&present).is_empty());
    }
}
