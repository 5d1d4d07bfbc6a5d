//! The identity of a disk, apart from its name and its position in a list.
//!
//! Each fact about a disk has a kind, and the kinds have an order. Kinds that belong to the device come before those
//! that are written on the device. The first kind that two records both have decides if the records are of one disk. A
//! file is the exception. A copy has another inode, so only an equal inode decides. If the inodes differ, the facts
//! that are written in the file decide.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DiskIndex, SourceDisk};

/// A kind of fact. Kinds that decide first come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// The worldwide name of a SCSI, SATA or NVMe disk.
    WorldwideName,
    /// The UUID of a device-mapper device, such as a logical volume.
    DeviceMapper,
    /// The UUID of a RAID array.
    Raid,
    /// The serial number that a disk or its hypervisor reports.
    Serial,
    /// Inode and birth time of a file.
    File,
    /// The id in the partition table.
    PartitionTable,
    /// The UUID of a file system that has the disk to itself.
    FileSystem,
}

impl Fact {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::WorldwideName,
        Self::DeviceMapper,
        Self::Raid,
        Self::Serial,
        Self::File,
        Self::PartitionTable,
        Self::FileSystem,
    ];

    /// Returns the name in messages and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorldwideName => "wwid",
            Self::DeviceMapper => "device_mapper",
            Self::Raid => "raid",
            Self::Serial => "serial",
            Self::File => "file",
            Self::PartitionTable => "partition_table",
            Self::FileSystem => "file_system",
        }
    }

    /// Returns the words for messages.
    fn words(self) -> &'static str {
        match self {
            Self::WorldwideName => "worldwide name",
            Self::DeviceMapper => "device-mapper UUID",
            Self::Raid => "RAID UUID",
            Self::Serial => "serial number",
            Self::File => "file",
            Self::PartitionTable => "partition table's id",
            Self::FileSystem => "file system's UUID",
        }
    }
}

/// The facts that are known of a disk. A disk can have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct DiskIdentity(BTreeMap<Fact, String>);

/// The fact by which two records are not of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    kind: Fact,
    then: String,
    now: String,
}

impl DiskIdentity {
    /// Adds a fact, unless it is empty.
    #[must_use]
    pub fn with(mut self, kind: Fact, value: Option<String>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.insert(kind, value);
        }
        self
    }

    /// Returns a fact.
    pub fn get(&self, kind: Fact) -> Option<&str> {
        self.0.get(&kind).map(String::as_str)
    }

    /// Returns true if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `Ok` if both identities are of one disk.
    ///
    /// # Errors
    /// The identities differ. The error holds the fact that decided, or `None` if they have no fact in common.
    pub fn same_as(&self, now: &Self) -> Result<(), Option<Difference>> {
        let mut difference = None;
        for kind in Fact::ALL {
            let (Some(then), Some(now)) = (self.get(kind), now.get(kind)) else {
                continue;
            };
            if then == now {
                return Ok(());
            }
            difference.get_or_insert_with(|| Difference {
                kind,
                then: then.to_owned(),
                now: now.to_owned(),
            });
            if kind != Fact::File {
                break;
            }
        }
        if self.is_empty() && now.is_empty() {
            return Ok(());
        }
        Err(difference)
    }

    /// Returns the agreement of two records, best first in order: for each kind 0 if equal, 1 if unknown, 2 if
    /// different.
    fn agreement(&self, other: &Self) -> [u8; 7] {
        Fact::ALL.map(|kind| match (self.get(kind), other.get(kind)) {
            (Some(one), Some(other)) if one == other => 0,
            (Some(_), Some(_)) => 2,
            _ => 1,
        })
    }
}

impl From<BTreeMap<String, String>> for DiskIdentity {
    fn from(facts: BTreeMap<String, String>) -> Self {
        facts.into_iter().collect()
    }
}

/// Kinds that this version does not know are left out.
impl FromIterator<(String, String)> for DiskIdentity {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(facts: I) -> Self {
        let known = |name: &str| Fact::ALL.into_iter().find(|kind| kind.as_str() == name);
        Self(
            facts
                .into_iter()
                .filter_map(|(name, value)| Some((known(&name)?, value)))
                .collect(),
        )
    }
}

impl From<DiskIdentity> for BTreeMap<String, String> {
    fn from(identity: DiskIdentity) -> Self {
        let facts = identity.0.into_iter();
        facts
            .map(|(kind, value)| (kind.as_str().to_owned(), value))
            .collect()
    }
}

/// A record of a disk at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRecord {
    /// Index of the disk in its list.
    pub index: DiskIndex,
    /// Path of the disk on the source.
    pub path: String,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Known facts of the disk. `None` in records of versions that did not report them.
    pub identity: Option<DiskIdentity>,
}

impl From<&SourceDisk> for DiskRecord {
    fn from(disk: &SourceDisk) -> Self {
        Self {
            index: disk.index,
            path: disk.path.clone(),
            size_bytes: disk.size_bytes,
            identity: disk.identity.clone(),
        }
    }
}

impl DiskRecord {
    /// Checks that `now`, which [`find_again`] found, is this disk and has the same size.
    ///
    /// # Errors
    /// The disk has changed.
    pub fn check(&self, now: Option<&Self>) -> Result<(), DiskChange> {
        let (index, path) = (self.index, self.path.clone());
        let Some(now) = now else {
            return Err(DiskChange::Gone { index, path });
        };
        match (&self.identity, &now.identity) {
            (Some(then), Some(known)) => {
                if let Err(difference) = then.same_as(known) {
                    return Err(DiskChange::Replaced {
                        index,
                        path: now.path.clone(),
                        difference,
                    });
                }
            }
            _ if self.path != now.path => {
                return Err(DiskChange::Moved {
                    index,
                    path,
                    now: now.path.clone(),
                });
            }
            _ => {}
        }
        if self.size_bytes == now.size_bytes {
            Ok(())
        } else {
            Err(DiskChange::Resized {
                index,
                path: now.path.clone(),
                then: self.size_bytes,
                now: now.size_bytes,
            })
        }
    }

    /// Returns the likeness of `now` to this disk, best first in order. `None` if `now` can't be this disk.
    fn likeness(&self, now: &Self) -> Option<([u8; 7], bool, bool)> {
        let (is_resized, has_moved) = (self.size_bytes != now.size_bytes, self.path != now.path);
        match (&self.identity, &now.identity) {
            (Some(then), Some(known)) => {
                then.same_as(known).ok()?;
                // Without facts, only path and size can decide.
                let is_known = !then.is_empty() || (!is_resized && !has_moved);
                is_known.then(|| (then.agreement(known), is_resized, has_moved))
            }
            _ => (self.index == now.index).then_some(([1; 7], is_resized, has_moved)),
        }
    }
}

/// A change of a source's disk since it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskChange {
    /// The source no longer has the disk.
    Gone {
        /// Index of the disk in the job.
        index: DiskIndex,
        /// Path of the disk when it was recorded.
        path: String,
    },
    /// Another disk is in its place.
    Replaced {
        /// Index of the disk in the job.
        index: DiskIndex,
        /// Path of the other disk.
        path: String,
        /// Fact that tells the disks apart, if they have one in common.
        difference: Option<Difference>,
    },
    /// A disk that is known by its path only has another path.
    Moved {
        /// Index of the disk in the job.
        index: DiskIndex,
        /// Path of the disk when it was recorded.
        path: String,
        /// Path of the disk that is found now.
        now: String,
    },
    /// The disk has another size.
    Resized {
        /// Index of the disk in the job.
        index: DiskIndex,
        /// Path of the disk.
        path: String,
        /// Bytes of the disk when it was recorded.
        then: u64,
        /// Bytes of the disk now.
        now: u64,
    },
}

impl fmt::Display for DiskChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone { index, path } => write!(
                f,
                "The source has no disk {index} any more; it was {path} when the job was created. Was it detached, or the agent started with \
                 fewer disks?"
            ),
            Self::Replaced {
                index,
                path,
                difference: Some(Difference { kind, then, now }),
            } => write!(
                f,
                "Disk {index} of the source, {path}, is another disk than when the job was created: its {} is {now:?} and was {then:?}.",
                kind.words()
            ),
            Self::Replaced { index, path, .. } => write!(
                f,
                "Disk {index} of the source, {path}, can't be recognised: nothing that was known of it when the job was created is known of it now."
            ),
            Self::Moved { index, path, now } => write!(
                f,
                "Disk {index} of the source is {now} and was {path} when the job was created."
            ),
            Self::Resized {
                index,
                path,
                then,
                now,
            } => write!(
                f,
                "Disk {index} of the source ({path}) has {now} bytes and had {then} when the job was created."
            ),
        }
    }
}

/// Returns, for each recorded disk, the position of the same disk in `now`, whatever its name and index are today.
///
/// Pairs that agree best come first, and each disk of `now` is used once. A recorded disk without a match gets the disk
/// at its path. [`DiskRecord::check`] then refuses that disk and names the difference. `None` if the path has no disk
/// either.
pub fn find_again(recorded: &[DiskRecord], now: &[DiskRecord]) -> Vec<Option<usize>> {
    let mut pairs = Vec::new();
    for (then, record) in recorded.iter().enumerate() {
        for (position, disk) in now.iter().enumerate() {
            if let Some(likeness) = record.likeness(disk) {
                pairs.push((likeness, then, position));
            }
        }
    }
    pairs.sort_unstable();
    let mut found = vec![None; recorded.len()];
    for (_, then, position) in pairs {
        if found[then].is_none() && !found.contains(&Some(position)) {
            found[then] = Some(position);
        }
    }
    for (then, record) in recorded.iter().enumerate() {
        let in_its_place =
            |disk: &DiskRecord| disk.path == record.path && record.likeness(disk).is_none();
        found[then] = found[then].or_else(|| now.iter().position(in_its_place));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(facts: &[(Fact, &str)]) -> DiskIdentity {
        let facts = facts.iter();
        facts.fold(DiskIdentity::default(), |identity, (kind, value)| {
            identity.with(*kind, Some((*value).to_owned()))
        })
    }

    fn disk(index: u16, path: &str, facts: &[(Fact, &str)]) -> DiskRecord {
        DiskRecord {
            index: DiskIndex(index),
            path: path.to_owned(),
            size_bytes: 1 << 30,
            identity: Some(identity(facts)),
        }
    }

    fn of_an_old_version(disk: &DiskRecord) -> DiskRecord {
        DiskRecord {
            identity: None,
            ..disk.clone()
        }
    }

    /// Finds the disks, checks each, and returns today's paths.
    fn paths(then: &[DiskRecord], now: &[DiskRecord]) -> Result<Vec<String>, DiskChange> {
        find_again(then, now)
            .into_iter()
            .zip(then)
            .map(|(found, record)| {
                let found = found.map(|position| &now[position]);
                record.check(found)?;
                Ok(found.expect("a disk that is checked").path.clone())
            })
            .collect()
    }

    #[test]
    fn the_first_kind_that_both_have_decides() {
        use Fact::{File, FileSystem, PartitionTable, Serial, WorldwideName};
        for (one, other, are_same) in [
            (
                &[(WorldwideName, "a")][..],
                &[(WorldwideName, "a")][..],
                true,
            ),
            (
                &[(WorldwideName, "a"), (PartitionTable, "t")],
                &[(WorldwideName, "b"), (PartitionTable, "t")],
                false,
            ),
            (
                &[(WorldwideName, "a"), (PartitionTable, "t")],
                &[(WorldwideName, "a"), (PartitionTable, "u")],
                true,
            ),
            (
                &[(Serial, "1"), (FileSystem, "f")],
                &[(FileSystem, "f")],
                true,
            ),
            (&[(Serial, "1")], &[(FileSystem, "f")], false),
            (
                &[(File, "1"), (PartitionTable, "t")],
                &[(File, "2"), (PartitionTable, "t")],
                true,
            ),
            (&[(File, "1")], &[(File, "2")], false),
            (&[], &[(PartitionTable, "t")], false),
            (&[], &[], true),
        ] {
            let (one, other) = (identity(one), identity(other));
            assert_eq!(one.same_as(&other).is_ok(), are_same, "{one:?} {other:?}");
            assert_eq!(other.same_as(&one).is_ok(), are_same, "{other:?} {one:?}");
        }
    }

    #[test]
    fn a_disk_is_found_under_another_name_and_another_disk_in_its_place_is_refused() {
        let serial = |serial| [(Fact::Serial, serial)];
        let then = [
            disk(0, "/dev/sda", &serial("A")),
            disk(1, "/dev/sdb", &serial("B")),
        ];
        let swapped = [
            disk(0, "/dev/sda", &serial("B")),
            disk(1, "/dev/sdb", &serial("A")),
        ];
        assert_eq!(paths(&then, &swapped).unwrap(), ["/dev/sdb", "/dev/sda"]);
        let renamed = [
            disk(0, "/dev/sda", &serial("C")),
            disk(1, "/dev/sdb", &serial("A")),
            disk(2, "/dev/sdc", &serial("B")),
        ];
        assert_eq!(paths(&then, &renamed).unwrap(), ["/dev/sdb", "/dev/sdc"]);

        let replaced = [then[0].clone(), disk(1, "/dev/sdb", &serial("C"))];
        let sentence = paths(&then, &replaced).unwrap_err().to_string();
        let said = "/dev/sdb, is another disk than when the job was created: its serial number is \"C\" and was \"B\"";
        assert!(sentence.contains(said), "{sentence}");
        let weak = [then[0].clone(), disk(1, "/dev/sdb", &[])];
        let sentence = paths(&then, &weak).unwrap_err().to_string();
        assert!(sentence.contains("can't be recognised"), "{sentence}");
        let gone = paths(&then, &then[..1]).unwrap_err().to_string();
        assert!(
            gone.contains("no disk 1 any more; it was /dev/sdb"),
            "{gone}"
        );
        let mut grown = then.clone();
        grown[1].size_bytes = 30 << 30;
        let sentence = paths(&then, &grown).unwrap_err().to_string();
        let said = "Disk 1 of the source (/dev/sdb) has 32212254720 bytes and had 1073741824";
        assert!(sentence.contains(said), "{sentence}");
    }

    #[test]
    fn a_clone_is_not_taken_for_the_disk_that_it_was_made_of() {
        let table = (Fact::PartitionTable, "gpt T");
        let then = [
            disk(0, "/srv/a", &[(Fact::File, "1"), table]),
            disk(1, "/srv/b", &[(Fact::File, "2"), table]),
        ];
        let swapped = [
            disk(0, "/srv/a", &[(Fact::File, "2"), table]),
            disk(1, "/srv/b", &[(Fact::File, "1"), table]),
        ];
        assert_eq!(paths(&then, &swapped).unwrap(), ["/srv/b", "/srv/a"]);
        let copied = [
            then[1].clone(),
            disk(2, "/srv/c", &[(Fact::File, "3"), table]),
        ];
        assert_eq!(paths(&then, &copied).unwrap(), ["/srv/c", "/srv/b"]);
        assert!(paths(&then, &then[1..]).is_err(), "one disk is not two");
    }

    #[test]
    fn disks_that_nothing_tells_apart_are_told_apart_by_their_path_and_size() {
        let then = [disk(0, "/dev/vda", &[]), disk(1, "/dev/vdb", &[])];
        assert_eq!(paths(&then, &then).unwrap(), ["/dev/vda", "/dev/vdb"]);
        let elsewhere = [then[0].clone(), disk(1, "/dev/vdc", &[])];
        assert!(paths(&then, &elsewhere).is_err(), "only the size is equal");
        let another = [then[0].clone(), disk(1, "/dev/vdb", &[(Fact::Serial, "X")])];
        assert!(paths(&then, &another).is_err());
    }

    #[test]
    fn records_of_an_older_version_go_by_index_path_and_size() {
        let now = [
            disk(0, "/dev/vda", &[(Fact::Serial, "A")]),
            disk(1, "/dev/vdb", &[]),
        ];
        let then = now.clone().map(|disk| of_an_old_version(&disk));
        assert_eq!(paths(&then, &now).unwrap(), ["/dev/vda", "/dev/vdb"]);
        assert_eq!(paths(&now, &then).unwrap(), ["/dev/vda", "/dev/vdb"]);
        let moved = [now[0].clone(), disk(1, "/dev/vdc", &[])];
        let sentence = paths(&then, &moved).unwrap_err().to_string();
        assert!(
            sentence.contains("Disk 1 of the source is /dev/vdc and was /dev/vdb"),
            "{sentence}"
        );
    }

    #[test]
    fn kinds_of_a_later_version_are_left_out() {
        let facts = [("serial", "A"), ("colour", "red")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let read: DiskIdentity = facts.into_iter().collect();
        assert_eq!(read, identity(&[(Fact::Serial, "A")]));
    }

    /// Generates `count` identities of distinct disks. Each has a fact of its own, and others that disks may share.
    fn distinct(count: usize) -> impl Strategy<Value = Vec<DiskIdentity>> {
        let one = (0..Fact::ALL.len(), proptest::collection::vec(0..2_u8, 7));
        proptest::collection::vec(one, count).prop_map(|disks| {
            let disks = disks.into_iter().enumerate();
            disks
                .map(|(number, (own, shared))| {
                    let own = Fact::ALL[own];
                    Fact::ALL.into_iter().zip(shared).fold(
                        DiskIdentity::default(),
                        |identity, (kind, has)| match kind {
                            _ if kind == own => identity.with(kind, Some(number.to_string())),
                            // A fact that precedes the disk's own must not decide otherwise.
                            _ if kind < own => identity,
                            _ => identity.with(kind, (has > 0).then(|| "common".to_owned())),
                        },
                    )
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn names_and_order_never_change_what_goes_where(
            (identities, order) in (1..9_usize).prop_flat_map(|count| {
                let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
                (distinct(count), order)
            })
        ) {
            let at = |place: usize, who: usize| DiskRecord {
                index: DiskIndex(u16::try_from(place).unwrap()),
                path: format!("/dev/sd{place}"),
                size_bytes: 1 << 30,
                identity: Some(identities[who].clone()),
            };
            let then: Vec<_> = (0..identities.len()).map(|who| at(who, who)).collect();
            let now: Vec<_> = order.iter().enumerate().map(|(place, who)| at(place, *who)).collect();
            for (who, found) in find_again(&then, &now).into_iter().enumerate() {
                prop_assert_eq!(found.map(|position| order[position]), Some(who));
                prop_assert!(then[who].check(found.map(|position| &now[position])).is_ok());
            }
        }

        #[test]
        fn whatever_is_found_no_disk_is_two(
            then in distinct(5), now in distinct(6),
        ) {
            let records = |identities: Vec<DiskIdentity>| -> Vec<DiskRecord> {
                identities.into_iter().enumerate().map(|(place, identity)| DiskRecord {
                    index: DiskIndex(u16::try_from(place).unwrap()),
                    path: format!("/dev/sd{place}"),
                    size_bytes: 1 << 30,
                    identity: Some(identity),
                }).collect()
            };
            let (then, now) = (records(then), records(now));
            let mut taken = Vec::new();
            for (record, found) in then.iter().zip(find_again(&then, &now)) {
                if record.check(found.map(|position| &now[position])).is_ok() {
                    prop_assert!(!taken.contains(&found));
                    taken.push(found);
                }
            }
        }
    }
}
