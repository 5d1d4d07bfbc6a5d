//! Facts about this server, and its disks.
//!
//! A task with a thread of its own collects them: a disk that hangs must not keep the agent from reporting that.

mod contents;
mod discover;
mod disk;
mod identity;
mod in_use;
mod layout;
mod partition;
mod repeated;
mod system;
#[cfg(test)]
mod testing;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::disk::{DiskIdentity, DiskIndex};
use domain::{Failure, FailureCode};
use proto::agent as wire;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::Config;
use contents::LastContents;
use discover::Sysfs;
use disk::Measured;
use system::SystemInfo;

pub(crate) use disk::measure;

/// The API's `KernelLevel`, 1 for every system that is supported.
const KERNEL_LEVEL: i32 = 1;

/// An inspection of the disks that takes longer than this counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(20);

/// The findings of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// The server and its readable disks.
    pub inventory: wire::Inventory,
    /// Reason for which the server can't be migrated, if any.
    pub failure: Option<Failure>,
}

impl Snapshot {
    /// Returns the snapshot before the disks have answered.
    pub fn unknown() -> Self {
        Self {
            inventory: inventory(Vec::new(), "{}".to_owned()),
            failure: Some(hung()),
        }
    }

    /// Returns true if the gateway should receive this snapshot before the next regular heartbeat.
    fn differs_from(&self, other: &Self) -> bool {
        self.failure != other.failure || self.inventory.disks != other.inventory.disks
    }
}

/// Collects the snapshots.
#[derive(Debug)]
pub(crate) struct Collector {
    /// The disks that the operator named; if empty, the agent finds them.
    named: Vec<PathBuf>,
    sysfs: Sysfs,
    system: SystemInfo,
    contents: LastContents,
}

impl Collector {
    pub fn new(config: &Config) -> Self {
        Self {
            named: config.disks(),
            sysfs: Sysfs::of_this_machine(),
            system: SystemInfo::new(&config.server),
            contents: LastContents::default(),
        }
    }

    /// Opens every disk and queries the system's facts. Blocks.
    pub fn collect(&mut self) -> Snapshot {
        let (disks, failure) = self.disks();
        Snapshot {
            inventory: inventory(disks, self.system.as_json()),
            failure,
        }
    }

    fn disks(&mut self) -> (Vec<wire::Disk>, Option<Failure>) {
        let paths = match self.named.as_slice() {
            [] => self.sysfs.disks(),
            named => named.to_vec(),
        };
        let failure = count_failure(paths.len()).or_else(|| repeated::failure(&paths, &self.sysfs));
        if failure.is_some() {
            return (Vec::new(), failure);
        }
        let mut disks = Vec::new();
        let mut complaints = Vec::new();
        for (index, path) in (0..).zip(&paths) {
            match measure(path) {
                Ok(measured) => disks.push(self.disk(index, path, &measured)),
                Err(failure) => complaints.push(failure.message),
            }
        }
        let failure = (!complaints.is_empty())
            .then(|| Failure::new(FailureCode::SourceDiskUnreadable, complaints.join(" ")));
        (disks, failure)
    }

    fn disk(&mut self, index: u32, path: &Path, measured: &Measured) -> wire::Disk {
        let (metadata, sysfs) = (&measured.metadata, &self.sysfs);
        let contents = self.contents.read(path, metadata);
        let layout = layout::of(metadata, &contents, sysfs);
        wire::Disk {
            index,
            path: path.display().to_string(),
            size_bytes: measured.size_bytes,
            used_bytes: usage::of(measured, sysfs),
            partitions: partition::on_the_wire(&contents.partitions, sysfs),
            logical_sector_bytes: layout.logical_sector_bytes,
            physical_sector_bytes: layout.physical_sector_bytes,
            partition_table: layout.partition_table.unwrap_or_default(),
            identity: Some(wire_identity(identity::of(metadata, &contents, sysfs))),
            in_use: in_use::of(path, measured, sysfs),
        }
    }
}

/// Returns the present facts about a disk, independent of earlier results.
pub(crate) fn identity_now(path: &Path, measured: &Measured) -> DiskIdentity {
    let contents = LastContents::default().read(path, &measured.metadata);
    identity::of(&measured.metadata, &contents, &Sysfs::of_this_machine())
}

fn wire_identity(identity: DiskIdentity) -> wire::DiskIdentity {
    let facts: BTreeMap<String, String> = identity.into();
    wire::DiskIdentity {
        facts: facts.into_iter().collect(),
    }
}

/// Returns the sentence about two named disks that are the same disk, if there are any. Blocks if a file system does
/// not answer.
pub(crate) fn repeated_among(named: &[PathBuf]) -> Option<String> {
    repeated::failure(named, &Sysfs::of_this_machine()).map(|failure| failure.message)
}

fn inventory(disks: Vec<wire::Disk>, system_info: String) -> wire::Inventory {
    wire::Inventory {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        platform: system::platform(),
        kernel_level: KERNEL_LEVEL,
        disks,
        system_info,
    }
}

fn count_failure(disks: usize) -> Option<Failure> {
    let most = usize::from(DiskIndex::MAX.0) + 1;
    let message = match disks {
        0 => "No disk was found on this server. Name its disks with --disk; the first is the system disk.".to_owned(),
        count if count > most => {
            format!("This server has {count} disks and a source has at most {most}. Name those to migrate with --disk.")
        }
        _ => return None,
    };
    Some(Failure::new(FailureCode::SourceDiskUnreadable, message))
}

fn hung() -> Failure {
    Failure::new(
        FailureCode::SourceDiskUnreadable,
        "The disks of this server do not answer. Look for errors of a disk in the kernel's log (dmesg).",
    )
}

/// Puts a new snapshot into `snapshots` now and at every interval, for ever.
pub(crate) async fn keep_up(
    collector: Arc<Mutex<Collector>>,
    snapshots: Arc<watch::Sender<Snapshot>>,
    interval: Duration,
) -> Result<(), JoinError> {
    loop {
        let snapshot = look(&collector, &snapshots).await?;
        publish(&snapshots, snapshot);
        tokio::time::sleep(interval).await;
    }
}

/// Inspects the disks on a thread that may hang, and reports a hung inspection.
async fn look(
    collector: &Arc<Mutex<Collector>>,
    snapshots: &watch::Sender<Snapshot>,
) -> Result<Snapshot, JoinError> {
    let collector = Arc::clone(collector);
    let mut looking = tokio::task::spawn_blocking(move || {
        // A panic in the middle leaves nothing incomplete: the next inspection starts from the beginning.
        collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .collect()
    });
    loop {
        match tokio::time::timeout(HUNG_AFTER, &mut looking).await {
            Ok(snapshot) => return snapshot,
            Err(_) => {
                let inventory = snapshots.borrow().inventory.clone();
                let failure = Some(hung());
                publish(snapshots, Snapshot { inventory, failure });
            }
        }
    }
}

fn publish(snapshots: &watch::Sender<Snapshot>, snapshot: Snapshot) {
    snapshots.send_if_modified(|known| {
        if known.failure != snapshot.failure {
            tell(snapshot.failure.as_ref());
        }
        let is_news = snapshot.differs_from(known);
        *known = snapshot;
        is_news
    });
}

fn tell(failure: Option<&Failure>) {
    match failure {
        Some(failure) => tracing::warn!(%failure, "this source can't be migrated"),
        None => tracing::info!("this source can be migrated"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(named: Vec<PathBuf>) -> Collector {
        let server = "https://127.0.0.1:1".parse().unwrap();
        Collector {
            named,
            sysfs: Sysfs::of_this_machine(),
            system: SystemInfo::new(&server),
            contents: LastContents::default(),
        }
    }

    #[test]
    fn named_disks_come_in_the_order_given_and_a_missing_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (system, data) = (
            directory.path().join("system"),
            directory.path().join("data"),
        );
        std::fs::File::create(&system)
            .unwrap()
            .set_len(5000)
            .unwrap();
        let mut collector = collector(vec![system, data.clone()]);

        let snapshot = collector.collect();
        assert_eq!(snapshot.inventory.disks.len(), 1);
        assert_eq!(snapshot.inventory.disks[0].size_bytes, 5000);
        let failure = snapshot.failure.unwrap();
        assert_eq!(failure.code, FailureCode::SourceDiskUnreadable);
        assert!(
            failure.message.contains(&data.display().to_string()),
            "{failure}"
        );
        assert!(failure.message.contains("--disk"), "{failure}");

        std::fs::File::create(&data).unwrap().set_len(7).unwrap();
        let snapshot = collector.collect();
        assert_eq!(snapshot.failure, None);
        assert_eq!(snapshot.inventory.disks[1].index, 1);
    }

    #[test]
    fn one_disk_under_two_names_is_no_inventory() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, other) = (directory.path().join("disk"), directory.path().join("link"));
        std::fs::write(&disk, [1; 4096]).unwrap();
        std::os::unix::fs::symlink(&disk, &other).unwrap();
        let snapshot = collector(vec![disk, other]).collect();
        assert!(snapshot.inventory.disks.is_empty());
        let failure = snapshot.failure.unwrap();
        assert_eq!(failure.code, FailureCode::SourceDiskRepeated);
    }

    #[test]
    fn a_source_has_one_to_seventeen_disks() {
        assert!(count_failure(0).unwrap().message.contains("--disk"));
        assert_eq!(count_failure(1), None);
        assert_eq!(count_failure(17), None);
        assert!(count_failure(18).is_some());
    }

    #[test]
    fn the_processor_s_load_is_no_news() {
        let one = Snapshot::default();
        let mut other = one.clone();
        other.inventory.system_info = "{}".to_owned();
        assert!(!other.differs_from(&one));
        other.inventory.disks.push(wire::Disk::default());
        assert!(other.differs_from(&one));
    }
}
