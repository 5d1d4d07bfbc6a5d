//! `wherry job modify`.

use clap::Args;
use domain::parameters::ReplicationParameters;
use domain::printable;
use smc::model::ModifyReplicationJobAttribute;

use super::tuning::Tuning;
use super::{data_disk, find, sizes};
use crate::connection::Api;
use crate::failure::UsageError;

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
    system_disk_size: Option<u32>,
    /// Size of a data disk of the image, as INDEX:GIB. Others keep theirs.
    #[arg(long, value_name = "INDEX:GIB", value_parser = data_disk)]
    data_disk: Vec<(u16, u32)>,
    /// Time at which the job starts by itself, as YYYY-MM-DDThh:mm:ssZ.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Time until which the job may be started, as YYYY-MM-DDThh:mm:ssZ: 7 to 90 days after it was created.
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
    /// Hours from one run to the next, 1 to 168.
    #[arg(long, value_name = "HOURS")]
    every: Option<i32>,
    /// Images that are kept, 1 to 10.
    #[arg(long, value_name = "N")]
    keep: Option<i32>,
    #[command(flatten)]
    tuning: Tuning,
}

impl Modify {
    pub(super) async fn run(self, api: &Api) -> anyhow::Result<()> {
        let job = find(api, &self.job).await?;
        let present = ReplicationParameters::parse(&job.replication_parameters)?;
        let request = ModifyReplicationJobAttribute {
            job_id: job.job_id,
            ..self.changes(&present)
        };
        let nothing = ModifyReplicationJobAttribute {
            job_id: request.job_id.clone(),
            ..ModifyReplicationJobAttribute::default()
        };
        if request == nothing {
            let what = "give what to change, such as --bandwidth-limit 200mbit: see `wherry job modify --help`";
            return Err(UsageError(what.to_owned()).into());
        }
        let answer = api.client.call(&request).await?;
        let id = printable(&request.job_id);
        api.show(&answer, |_| format!("Job {id} is changed.\n"));
        Ok(())
    }

    /// The request but for the job.
    fn changes(&self, present: &ReplicationParameters) -> ModifyReplicationJobAttribute {
        ModifyReplicationJobAttribute {
            name: self.name.clone(),
            description: self.description.clone(),
            image_name: self.image_name.clone(),
            system_disk_size: self.system_disk_size,
            data_disk: sizes(&self.data_disk),
            scheduled_start_time: self.at.clone(),
            valid_time: self.valid_until.clone(),
            frequency: self.every,
            max_number_of_image_to_keep: self.keep,
            replication_parameters: self.tuning.applied_to(present),
            ..ModifyReplicationJobAttribute::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use smc::model;

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
            ("DataDisk.1.Index", "1"),
            ("DataDisk.1.Size", "40"),
            ("Frequency", "12"),
            ("JobId", ""),
            ("Name", "web-2"),
            (
                "ReplicationParameters",
                r#"{"bandwidth_limit":1000000,"checksum":true}"#,
            ),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(model::pairs(&modify.changes(&present)), expected);
        let nothing = Only::parse_from(["modify", "web"]).modify;
        let unchanged = ModifyReplicationJobAttribute::default();
        assert_eq!(nothing.changes(&present), unchanged);
    }
}
