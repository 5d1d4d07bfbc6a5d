//! The partitions of a disk, by `sfdisk`, which owns partition tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::allocation::{INPUT, OpenDisk, Tool, ToolError, Tools};

const SFDISK: Tool = Tool::reader("sfdisk", "fdisk");
const BLKID: Tool = Tool::reader("blkid", "util-linux");

/// Longest look at a table.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Exit code of `sfdisk` when a disk has no partition table, or can't be read. Only in the first case it says so.
const NO_TABLE: i32 = 1;
const SAYS_NO_TABLE: &str = "does not contain a recognized partition table";

/// Types of partitions that only hold others, in tables of the DOS kind.
const CONTAINERS: [&str; 3] = ["5", "f", "85"];

/// The same as the table itself has them.
const CONTAINER_TYPES: [u8; 3] = [0x5, 0xf, 0x85];

/// The type of an EFI system partition, in tables of both kinds.
const EFI_SYSTEM: [&str; 2] = ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"];

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its kind, as `sfdisk` calls it: `gpt`, `dos` or another.
    pub kind: String,
    /// The sectors that it counts in, in bytes.
    pub sector_bytes: u64,
    /// The id that is written in it; `None` where it has none.
    pub id: Option<String>,
    /// In its order.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u64,
    /// Its path in the kernel, such as `/dev/vda1`. For a partition in a file this names nothing.
    pub path: PathBuf,
    /// Its first byte on the disk.
    pub start_bytes: u64,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its type as the table has it: a GUID, or two hexadecimal digits.
    pub kind: String,
    /// True if the table marks it as the one to boot from.
    pub is_active: bool,
}

impl Partition {
    /// The byte behind its last.
    pub fn end_bytes(&self) -> u64 {
        self.start_bytes.saturating_add(self.size_bytes)
    }

    /// Returns true if it only holds other partitions.
    pub fn is_container(&self) -> bool {
        CONTAINERS.contains(&self.kind.as_str())
    }

    /// Returns true for the type, in a DOS table, of a partition that only holds others.
    pub(super) fn is_type_of_container(kind: u8) -> bool {
        CONTAINER_TYPES.contains(&kind)
    }

    /// Returns true if a machine begins with it: an EFI system partition, or one that is marked.
    pub fn is_for_boot(&self) -> bool {
        self.is_active || EFI_SYSTEM.contains(&self.kind.as_str())
    }
}

#[derive(Deserialize)]
struct Output {
    partitiontable: Listed,
}

#[derive(Deserialize)]
struct Listed {
    label: String,
    #[serde(default)]
    id: String,
    #[serde(default = "usual_sector")]
    sectorsize: u64,
    #[serde(default)]
    partitions: Vec<Row>,
}

/// Earlier versions of sfdisk do not say it.
fn usual_sector() -> u64 {
    512
}

#[derive(Deserialize)]
struct Row {
    node: String,
    start: u64,
    size: u64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    bootable: bool,
}

/// The partition table of a disk; `None` where there is none.
///
/// # Errors
/// See [`ToolError`].
pub fn table_of(disk: &Path) -> Result<Option<Table>, ToolError> {
    table(&Tools::within(TIMEOUT), &open("sfdisk --json", disk)?)
}

/// The UUID of a file system that has the whole disk to itself; `None` where there is none, or more than one.
///
/// # Errors
/// See [`ToolError`].
pub fn file_system_of(disk: &Path) -> Result<Option<String>, ToolError> {
    let mut uuid = None;
    let arguments = ["-p", "-o", "value", "-s", "UUID", INPUT];
    let ended =
        Tools::within(TIMEOUT).run(BLKID, &open("blkid -p", disk)?, &arguments, |line| {
            uuid = Some(line.to_owned());
        })?;
    Ok(uuid.filter(|uuid| ended.code == 0 && !uuid.is_empty()))
}

fn open(command: &str, disk: &Path) -> Result<OpenDisk, ToolError> {
    OpenDisk::open(disk).map_err(|error| ToolError::Failed {
        command: format!("{command} {}", disk.display()),
        outcome: format!("can't be given the disk ({error})"),
    })
}

/// The table of a disk; `None` where there is none.
pub(super) fn table(tools: &Tools, disk: &OpenDisk) -> Result<Option<Table>, ToolError> {
    let mut text = String::new();
    let ended = tools.run(SFDISK, disk, &["--json", INPUT], |line| text.push_str(line))?;
    let failed = |outcome| ToolError::Failed {
        command: format!("sfdisk --json {}", disk.path().display()),
        outcome,
    };
    match ended.code {
        0 => parse(&text, disk.path())
            .map(Some)
            .ok_or_else(|| failed("printed something else than a table".to_owned())),
        NO_TABLE if ended.errors.contains(SAYS_NO_TABLE) => Ok(None),
        code => Err(failed(format!("ended with exit code {code}"))),
    }
}

fn parse(text: &str, disk: &Path) -> Option<Table> {
    let listed = serde_json::from_str::<Output>(text).ok()?.partitiontable;
    let bytes = |sectors: u64| sectors.saturating_mul(listed.sectorsize);
    let partitions = listed.partitions.into_iter().map(|row| {
        let number = number(&row.node)?;
        Some(Partition {
            number,
            path: path_of(disk, number),
            start_bytes: bytes(row.start),
            size_bytes: bytes(row.size),
            kind: row.kind,
            is_active: row.bootable,
        })
    });
    // A table that nobody has marked has zeros for an id.
    let is_id = |id: &String| {
        let digits = id.trim_start_matches("0x");
        digits.bytes().any(|digit| !matches!(digit, b'0' | b'-'))
    };
    Some(Table {
        kind: listed.label,
        id: Some(listed.id).filter(is_id),
        sector_bytes: listed.sectorsize,
        partitions: partitions.collect::<Option<_>>()?,
    })
}

/// The number at the end of a name.
fn number(node: &str) -> Option<u64> {
    let name = node.trim_end_matches(|character: char| character.is_ascii_digit());
    node[name.len()..].parse().ok()
}

/// The kernel's name of a partition: `sfdisk` knows the disk only as its input.
fn path_of(disk: &Path, number: u64) -> PathBuf {
    let mut name = disk.as_os_str().to_owned();
    if name
        .as_encoded_bytes()
        .last()
        .is_some_and(u8::is_ascii_digit)
    {
        name.push("p");
    }
    name.push(number.to_string());
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_can_t_be_read_is_not_one_without_a_table() {
        let directory = tempfile::tempdir().unwrap();
        // It opens, and no byte of it can be read.
        let unreadable = table_of(directory.path());
        assert!(unreadable.is_err(), "{unreadable:?}");
    }

    #[test]
    fn tables_of_both_kinds_are_read_and_a_disk_without_one_has_no_partitions() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        let file = std::fs::File::create_new(&disk).unwrap();
        file.set_len(64 << 20).unwrap();
        assert_eq!(table_of(&disk), Ok(None));

        let table = |script: &str| {
            let mut sfdisk = std::process::Command::new("sfdisk")
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .args(["--quiet", "--wipe=always"])
                .arg(&disk)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut sfdisk.stdin.take().unwrap(), script.as_bytes())
                .unwrap();
            assert!(sfdisk.wait().unwrap().success());
            table_of(&disk).unwrap().unwrap()
        };
        let gpt = table(
            "label: gpt\nlabel-id: 6F8E5C0A-0000-4000-8000-000000000001\nsize=8MiB, type=U\ntype=L\n",
        );
        assert_eq!(gpt.kind, "gpt");
        let id = "6F8E5C0A-0000-4000-8000-000000000001";
        assert_eq!(gpt.id.as_deref(), Some(id));
        let gpt = gpt.partitions;
        assert_eq!(gpt.len(), 2);
        assert_eq!(gpt[1].path, directory.path().join("disk2"));
        assert_eq!(
            path_of(Path::new("/dev/nvme0n1"), 3),
            Path::new("/dev/nvme0n1p3")
        );
        assert_eq!((gpt[0].start_bytes, gpt[0].size_bytes), (1 << 20, 8 << 20));
        assert!(gpt[0].is_for_boot() && !gpt[1].is_for_boot());
        assert!(gpt[1].end_bytes() <= 64 << 20);

        let unmarked = table("label: dos\nlabel-id: 0x00000000\nsize=8MiB, type=83\n");
        assert_eq!((unmarked.kind.as_str(), unmarked.id), ("dos", None));
        let dos = table(
            "label: dos\nlabel-id: 0x6f8e5c0a\nsize=8MiB, type=83, bootable\ntype=5\nsize=4MiB, type=83\n",
        );
        assert_eq!(dos.id.as_deref(), Some("0x6f8e5c0a"));
        let dos = dos.partitions;
        assert_eq!(
            dos.iter().map(Partition::is_container).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(dos[0].is_for_boot() && !dos[2].is_for_boot());
        assert!(
            dos[1].start_bytes < dos[2].start_bytes && dos[2].end_bytes() <= dos[1].end_bytes()
        );
    }

    #[test]
    fn a_file_system_that_has_the_disk_to_itself_is_known_by_its_uuid() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        std::fs::File::create_new(&disk)
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
        assert_eq!(file_system_of(&disk), Ok(None));
        let uuid = "6f8e5c0a-0000-4000-8000-000000000001";
        crate::testing::sh(&format!("mkfs.ext4 -q -U {uuid} {}", disk.display()));
        assert_eq!(file_system_of(&disk).unwrap().as_deref(), Some(uuid));
        assert_eq!(table_of(&disk), Ok(None));
    }
}
