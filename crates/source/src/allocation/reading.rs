//! The one reading of a disk's bytes.
//!
//! Making a file system, a RAID or a partition table leaves most of what was there before: a disk can be a RAID member,
//! and have the whole table and the clean file system of an earlier life in its data. Asking the table first would take
//! the remains for the truth. So every signature on the disk is listed before any is believed, and only two findings
//! let space be left out: one file system that is all there is, or one partition table that is all there is, and in its
//! partitions one file system each. Whatever can be read in two ways, or in none that is known, is copied.

use std::os::unix::fs::FileExt as _;

use serde::Deserialize;

use super::place::Place;
use super::{INPUT, OpenDisk, Tool, Tools, Unknown};
use crate::partitions::{self, Partition, Table};

const WIPEFS: Tool = Tool::reader("wipefs", "util-linux");
const BLKID: Tool = Tool::reader("blkid", "util-linux");

/// Exit codes of `blkid` when it recognises nothing, and when it recognises several things.
const NOTHING: i32 = 2;
const SEVERAL: i32 = 8;

/// Names of `wipefs` for a GPT and for the DOS table that protects it.
const GPT: &str = "gpt";
const PROTECTIVE: &str = "PMBR";
const DOS: &str = "dos";

/// Place and number of the entries of a DOS table, and the places of type and first sector in each.
const ENTRIES_AT: usize = 446;
const ENTRY_BYTES: usize = 16;
const ENTRIES: usize = 4;
const TYPE_AT: usize = 4;
const FIRST_AT: usize = 8;

/// The type of the one entry of a protective table.
const OF_GPT: u8 = 0xee;

/// Longest chain of tables in an extended partition that is followed.
const MOST_LINKS: usize = 128;

/// A kind of file systems whose free space is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// ext2, ext3 and ext4.
    Ext,
    Xfs,
    Btrfs,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "ext2" | "ext3" | "ext4" => Some(Self::Ext),
            "xfs" => Some(Self::Xfs),
            "btrfs" => Some(Self::Btrfs),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ext => "ext",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
        }
    }
}

/// The places of the disk that may hold a file system: its partitions, or all of it where it has none.
pub(super) fn places<'a>(
    tools: &Tools,
    disk: &'a OpenDisk,
    size_bytes: u64,
) -> Result<Vec<Place<'a>>, Unknown> {
    let whole = Place {
        disk,
        offset_bytes: 0,
        size_bytes,
    };
    let signatures = signatures(tools, disk)?;
    let names: Vec<&str> = signatures.iter().map(|found| found.kind.as_str()).collect();
    let kind = match names.as_slice() {
        [] => return Err(Unknown::Content("what is no file system".to_owned())),
        [DOS] => DOS,
        [one] if *one != GPT => return Ok(vec![whole]),
        all if all.iter().all(|name| [GPT, PROTECTIVE].contains(name)) => GPT,
        several => return Err(Unknown::Several(listed(several))),
    };
    let found = probe(tools, &whole)?;
    if found.kind.is_some() || found.table.as_deref() != Some(kind) {
        return Err(Unknown::Several(listed(&names)));
    }
    let table = partitions::table(tools, disk)?.filter(|table| table.kind == kind);
    let table = table.ok_or(Unknown::Output("partition tables"))?;
    if kind == GPT {
        check_gpt(disk, &signatures, &table)?;
    }
    let data = apart(disk, &table, size_bytes)?;
    Ok(data
        .into_iter()
        .map(|part| Place {
            disk,
            offset_bytes: part.start_bytes,
            size_bytes: part.size_bytes,
        })
        .collect())
}

/// The kind of the file system that is all there is in a place.
pub(super) fn file_system(tools: &Tools, place: &Place<'_>) -> Result<Kind, Unknown> {
    let found = probe(tools, place)?;
    let name = match (found.kind, found.table) {
        (Some(name), None) => name,
        (None, Some(_)) => "a partition table within".to_owned(),
        (Some(name), Some(table)) => return Err(Unknown::Several(listed(&[&name, &table]))),
        (None, None) => "what is there".to_owned(),
    };
    Kind::of(&name).ok_or(Unknown::Content(name))
}

/// Bytes by which something is recognised.
#[derive(Debug, Deserialize)]
struct Signature {
    offset: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Signature {
    fn offset_bytes(&self) -> Option<u64> {
        u64::from_str_radix(self.offset.strip_prefix("0x")?, 16).ok()
    }
}

#[derive(Deserialize)]
struct Signatures {
    signatures: Vec<Signature>,
}

/// All that is recognised on a disk as a whole.
fn signatures(tools: &Tools, disk: &OpenDisk) -> Result<Vec<Signature>, Unknown> {
    let mut text = String::new();
    let arguments = ["--no-act", "--json", "--output", "OFFSET,TYPE", INPUT];
    tools.lines(WIPEFS, disk, &arguments, |line| text.push_str(line))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Signatures>(&text)
        .map(|found| found.signatures)
        .map_err(|_| Unknown::Output("signatures"))
}

/// Returns what `blkid` recognises.
#[derive(Debug, Default)]
struct Found {
    /// The kind of a file system, or of a member of something.
    kind: Option<String>,
    /// The kind of a partition table.
    table: Option<String>,
}

fn probe(tools: &Tools, place: &Place<'_>) -> Result<Found, Unknown> {
    let (offset, size) = (place.offset_bytes.to_string(), place.size_bytes.to_string());
    let arguments = [
        "-p", "-o", "export", "--offset", &offset, "--size", &size, INPUT,
    ];
    let mut found = Found::default();
    let ended = tools.run(BLKID, place.disk, &arguments, |line| {
        if let Some(kind) = line.strip_prefix("TYPE=") {
            found.kind = Some(word(kind));
        } else if let Some(table) = line.strip_prefix("PTTYPE=") {
            found.table = Some(word(table));
        }
    })?;
    match ended.code {
        0 => Ok(found),
        NOTHING => Err(Unknown::Content("what is no file system".to_owned())),
        SEVERAL => Err(Unknown::Several("blkid is not sure".to_owned())),
        code => Err(Unknown::Unreadable(format!("blkid ended with {code}"))),
    }
}

/// Checks that the first copy of the table was used, and that no other table lies beside it.
fn check_gpt(disk: &OpenDisk, signatures: &[Signature], table: &Table) -> Result<(), Unknown> {
    let has_first = signatures.iter().any(|signature| {
        signature.kind == GPT && signature.offset_bytes() == Some(table.sector_bytes)
    });
    if !has_first {
        return Err(Unknown::Backup);
    }
    let is_protective = |entry: &Entry| entry.kind == 0 || entry.kind == OF_GPT;
    if !entries(disk, 0)?.iter().all(is_protective) {
        return Err(Unknown::Several("a GPT and a DOS table".to_owned()));
    }
    Ok(())
}

/// The partitions with data, if none lies over another or over a table, and none reaches beyond the disk or what holds
/// it.
fn apart(disk: &OpenDisk, table: &Table, size_bytes: u64) -> Result<Vec<Partition>, Unknown> {
    let (containers, data): (Vec<Partition>, Vec<Partition>) = table
        .partitions
        .iter()
        .cloned()
        .partition(Partition::is_container);
    let is_logical = |part: &&Partition| table.kind == DOS && part.number > ENTRIES as u64;
    let (logical, primary): (Vec<_>, Vec<_>) = data.iter().partition(is_logical);
    let holder = containers.first();
    let links = match (table.kind.as_str(), holder) {
        (DOS, Some(holder)) => links(disk, holder, table.sector_bytes)?,
        _ => Vec::new(),
    };
    let are_apart = |parts: Vec<&Partition>| {
        let mut parts = parts;
        parts.sort_by_key(|part| part.start_bytes);
        parts
            .windows(2)
            .all(|pair| pair[0].end_bytes() <= pair[1].start_bytes)
    };
    let is_within = |part: &&Partition| {
        holder.is_some_and(|holder| {
            holder.start_bytes <= part.start_bytes && part.end_bytes() <= holder.end_bytes()
        })
    };
    let covers_link = |part: &Partition| {
        links
            .iter()
            .any(|link| (part.start_bytes..part.end_bytes()).contains(link))
    };
    let is_right = containers.len() <= 1
        && logical.iter().all(is_within)
        && are_apart(primary.into_iter().chain(holder).collect())
        && are_apart(logical)
        && !data.iter().any(covers_link)
        && table
            .partitions
            .iter()
            .all(|part| part.start_bytes > 0 && part.end_bytes() <= size_bytes);
    if is_right {
        Ok(data)
    } else {
        Err(Unknown::Overlap)
    }
}

/// An entry of a DOS table.
struct Entry {
    kind: u8,
    first: u32,
}

fn entries(disk: &OpenDisk, at_byte: u64) -> Result<Vec<Entry>, Unknown> {
    let mut sector = [0; ENTRIES_AT + ENTRIES * ENTRY_BYTES];
    disk.file()
        .read_exact_at(&mut sector, at_byte)
        .map_err(|error| Unknown::Unreadable(error.to_string()))?;
    let first = |entry: &[u8]| {
        let bytes = entry[FIRST_AT..].first_chunk::<4>();
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    Ok(sector[ENTRIES_AT..]
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| Entry {
            kind: entry[TYPE_AT],
            first: first(entry),
        })
        .collect())
}

/// Returns the places of the tables of the logical partitions. Each table has one partition, and the place of the next
/// table.
fn links(disk: &OpenDisk, holder: &Partition, sector_bytes: u64) -> Result<Vec<u64>, Unknown> {
    let mut links = vec![holder.start_bytes];
    while let Some(&at) = links.last() {
        let next = entries(disk, at)?
            .into_iter()
            .find(|entry| Partition::is_type_of_container(entry.kind));
        let Some(next) = next else {
            return Ok(links);
        };
        let next = holder.start_bytes + u64::from(next.first) * sector_bytes;
        if links.contains(&next) || links.len() == MOST_LINKS {
            return Err(Unknown::Overlap);
        }
        links.push(next);
    }
    Ok(links)
}

/// The tool's word, without what does not belong into one.
fn word(text: &str) -> String {
    text.chars()
        .filter(|character| character.is_ascii_alphanumeric() || "_-+.".contains(*character))
        .take(32)
        .collect()
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().take(8).map(|name| word(name)).collect();
    names.join(", ")
}
