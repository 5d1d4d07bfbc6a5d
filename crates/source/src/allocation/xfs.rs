//! XFS, by `xfs_db` and `xfs_logprint`.
//!
//! Since version 5 of the format each block of metadata has a checksum. `xfs_db` complains of one that does not match,
//! and goes on: its complaints count. Older file systems are checked as a whole by `xfs_repair`, as far as there is
//! time.

use std::collections::BTreeMap;

use super::ranges::Ranges;
use super::{FileSystem, INPUT, OpenDisk, Tool, Tools, Unknown};

const XFS_DB: Tool = Tool::reader("xfs_db", "xfsprogs");
const XFS_LOGPRINT: Tool = Tool::reader_of_readonly("xfs_logprint", "xfsprogs");
const XFS_REPAIR: Tool = Tool::reader("xfs_repair", "xfsprogs");
const KIND: &str = "XFS";

/// Allocation groups that one call asks about: a command line is not endless.
const GROUPS_AT_ONCE: u64 = 500;

/// The first version whose metadata has checksums, in the low bits of `versionnum`.
const CHECKSUMS_SINCE: u64 = 5;
const VERSION_BITS: u64 = 0xf;

/// Parts of what `xfs_db` complains with where a checksum or the content of a block is wrong.
const OF_DAMAGE: [&str; 2] = ["CRC error", "orruption"];

/// Inspects the file system on all of a read-only device.
pub(super) fn inspect(tools: &Tools, device: &OpenDisk) -> Result<FileSystem, Unknown> {
    let mut is_clean = false;
    tools.lines(XFS_LOGPRINT, device, &["-t", INPUT], |line| {
        is_clean |= line.ends_with("state: <CLEAN>");
    })?;
    if !is_clean {
        return Err(Unknown::Unclean(KIND));
    }
    let names = "versionnum dblocks blocksize agblocks agcount fdblocks logstart";
    let superblock = fields(tools, device, &["sb 0", &format!("print {names}")])?;
    let field = |name: &str| superblock.get(name).copied().ok_or(Unknown::Output(KIND));
    if field("logstart")? == 0 {
        // The log is on another device, which may be that of another file system.
        return Err(Unknown::Content("XFS with an external log".to_owned()));
    }
    if field("versionnum")? & VERSION_BITS < CHECKSUMS_SINCE
        && tools.run(XFS_REPAIR, device, &["-n", INPUT], |_| {})?.code != 0
    {
        return Err(Unknown::Damaged(KIND));
    }
    let (group_blocks, groups) = (field("agblocks")?, field("agcount")?);
    let mut ranges = Ranges::new(field("blocksize")?);
    ask(tools, device, &["freesp -d"], |line| {
        if let Some((group, first, count)) = row(line) {
            ranges.add(
                group.saturating_mul(group_blocks).saturating_add(first),
                count,
            );
        }
    })?;
    let in_groups = Counts::of(tools, device, groups)?;
    let listed = ranges.blocks();
    for (counted, listed) in [
        (in_groups.free, listed),
        (field("fdblocks")?, listed + in_groups.of_btrees),
    ] {
        if counted != listed {
            return Err(Unknown::Sum {
                kind: KIND,
                counted,
                listed,
            });
        }
    }
    Ok(FileSystem {
        size_bytes: field("dblocks")?.saturating_mul(field("blocksize")?),
        free: ranges.in_order().ok_or(Unknown::Output(KIND))?,
    })
}

/// Counts in the headers of the allocation groups.
#[derive(Default)]
struct Counts {
    /// Free blocks, with those that a group keeps at hand for its trees.
    free: u64,
    /// Blocks of the trees of free space, which the superblock counts as free.
    of_btrees: u64,
}

impl Counts {
    fn of(tools: &Tools, device: &OpenDisk, groups: u64) -> Result<Self, Unknown> {
        let mut counts = Self::default();
        for first in (0..groups).step_by(usize::try_from(GROUPS_AT_ONCE).unwrap_or(1)) {
            let commands: Vec<String> = (first..groups.min(first + GROUPS_AT_ONCE))
                .flat_map(|group| {
                    [
                        format!("agf {group}"),
                        "print freeblks flcount btreeblks".to_owned(),
                    ]
                })
                .collect();
            let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
            ask(tools, device, &commands, |line| match assigned(line) {
                Some(("freeblks" | "flcount", blocks)) => counts.free += blocks,
                Some(("btreeblks", blocks)) => counts.of_btrees += blocks,
                _ => {}
            })?;
        }
        Ok(counts)
    }
}

fn ask(
    tools: &Tools,
    device: &OpenDisk,
    commands: &[&str],
    take: impl FnMut(&str),
) -> Result<(), Unknown> {
    let mut arguments = vec!["-r"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(INPUT);
    let ended = tools.lines(XFS_DB, device, &arguments, take)?;
    let is_damaged = OF_DAMAGE.iter().any(|part| ended.errors.contains(part));
    if is_damaged {
        return Err(Unknown::Damaged(KIND));
    }
    Ok(())
}

fn fields(
    tools: &Tools,
    device: &OpenDisk,
    commands: &[&str],
) -> Result<BTreeMap<String, u64>, Unknown> {
    let mut fields = BTreeMap::new();
    ask(tools, device, commands, |line| {
        if let Some((name, value)) = assigned(line) {
            fields.insert(name.to_owned(), value);
        }
    })?;
    Ok(fields)
}

/// `name = 12`, or `name = 0xc`
fn assigned(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(" = ")?;
    let value = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    Some((name, value.ok()?))
}

/// Group, first block and number of blocks. The summary behind the list has more columns.
fn row(line: &str) -> Option<(u64, u64, u64)> {
    let mut columns = line.split_whitespace().map(str::parse::<u64>);
    let row = (
        columns.next()?.ok()?,
        columns.next()?.ok()?,
        columns.next()?.ok()?,
    );
    columns.next().is_none().then_some(row)
}
