//! The file `instance`: all settings of a receiver's run, written only by the worker that created its directory.
//!
//! It is read once, before any listener opens. No call can name another job, image or disk than this file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use domain::disk::{DiskIndex, DiskLayout};
use domain::{Epoch, ImageId, Run, SourceId};
use prost::Message as _;
use proto::receiver as wire;
use transfer::TicketSecret;
use transfer::receiver::{Admission, TargetDisk};

use crate::Error;

/// The contents of the file, parsed.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) identity: transport::Identity,
    pub(crate) listen: IpAddr,
    pub(crate) image_store: PathBuf,
    pub(crate) work: Work,
}

/// The disks that one run receives, their sender, and the image that the run makes.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) admission: Admission,
    pub(crate) source_id: SourceId,
    pub(crate) image_id: ImageId,
    pub(crate) image_name: String,
    /// Partition layouts of the disks on the source.
    pub(crate) layouts: BTreeMap<DiskIndex, DiskLayout>,
}

impl Instance {
    /// Reads the file of a directory.
    ///
    /// # Errors
    /// [`Error::NoInstance`] and [`Error::Malformed`].
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        let bytes =
            std::fs::read(directory.join("instance")).map_err(|source| Error::NoInstance {
                path: directory.to_owned(),
                source,
            })?;
        let config = wire::InstanceConfig::decode(bytes.as_slice());
        config
            .map_err(|error| error.to_string())
            .and_then(Self::parse)
            .map_err(|what| Error::Malformed {
                path: directory.to_owned(),
                what,
            })
    }

    fn parse(config: wire::InstanceConfig) -> Result<Self, String> {
        let listen = config.listen_ip.parse();
        let work = config.work.ok_or("it says nothing of a run")?;
        Ok(Self {
            id: config.instance_id,
            identity: transport::Identity {
                authority_pem: config.authority_pem,
                certificate_pem: config.certificate_pem,
                key_pem: config.key_pem,
            },
            listen: listen.map_err(|_| format!("{:?} is no address", config.listen_ip))?,
            image_store: config.image_store.into(),
            work: Work::parse(Epoch(config.epoch), work)?,
        })
    }
}

impl Work {
    fn parse(epoch: Epoch, work: wire::Work) -> Result<Self, String> {
        let unreadable = |what: &str| format!("{what} can't be read");
        let disks = work
            .disks
            .iter()
            .map(|disk| {
                let index = u16::try_from(disk.index).map_err(|_| unreadable("a disk's index"))?;
                Ok(TargetDisk {
                    index: DiskIndex(index),
                    source_bytes: disk.source_size_bytes,
                    target_bytes: disk.target_size_bytes,
                })
            })
            .collect::<Result<_, String>>()?;
        let layouts = work.disks.into_iter().filter_map(|disk| {
            let layout = DiskLayout {
                logical_sector_bytes: disk.logical_sector_bytes,
                physical_sector_bytes: disk.physical_sector_bytes,
                partition_table: Some(disk.partition_table).filter(|kind| !kind.is_empty()),
            };
            Some((DiskIndex(u16::try_from(disk.index).ok()?), layout))
        });
        let job_id = work.job_id.parse();
        let source_id = work.source_id.parse();
        let image_id = work.image_id.parse();
        let secret = TicketSecret::from_bytes(&work.ticket_secret);
        Ok(Self {
            admission: Admission {
                epoch,
                job_id: job_id.map_err(|_| unreadable("the job's id"))?,
                run: Run(work.run),
                secret: secret.ok_or_else(|| unreadable("the ticket's secret"))?,
                disks,
                checksum: work.checksum,
            },
            source_id: source_id.map_err(|_| unreadable("the source's id"))?,
            image_id: image_id.map_err(|_| unreadable("the image's id"))?,
            image_name: work.image_name,
            layouts: layouts.collect(),
        })
    }
}
