//! XFS, by `xfs_db` and `xfs_logprint`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use super::ranges::Ranges;
use super::{Tool, Tools, Unknown};
use crate::plan::Extent;

const XFS_DB: Tool = ("xfs_db", "xfsprogs");
const XFS_LOGPRINT: Tool = ("xfs_logprint", "xfsprogs");
const KIND: &str = "XFS";

/// Allocation groups that one call asks about: a command line is not endless.
const GROUPS_AT_ONCE: u64 = 500;

pub(super) fn free(tools: &Tools, device: &Path) -> Result<Vec<Extent>, Unknown> {
    let mut is_clean = false;
    let arguments = ["-t".as_ref(), device.as_os_str()];
    tools.lines(XFS_LOGPRINT, &arguments, |line| {
        is_clean |= line.ends_with("state: <CLEAN>");
    })?;
    if !is_clean {
        return Err(Unknown::Unclean(KIND));
    }
    let names = "blocksize agblocks agcount fdblocks logstart";
    let superblock = fields(tools, device, &["sb 0", &format!("print {names}")])?;
    let field = |name: &str| superblock.get(name).copied().ok_or(Unknown::Output(KIND));
    if field("logstart")? == 0 {
        // The log is on another device, which may be that of another file system.
        return Err(Unknown::Content("XFS with an external log".to_owned()));
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
    ranges.in_order().ok_or(Unknown::Output(KIND))
}

/// What the headers of the allocation groups count.
#[derive(Default)]
struct Counts {
    /// Free blocks, with those that a group keeps at hand for its trees.
    free: u64,
    /// Blocks of the trees of free space, which the superblock counts as free.
    of_btrees: u64,
}

impl Counts {
    fn of(tools: &Tools, device: &Path, groups: u64) -> Result<Self, Unknown> {
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
    device: &Path,
    commands: &[&str],
    take: impl FnMut(&str),
) -> Result<(), Unknown> {
    let mut arguments = vec![OsStr::new("-r")];
    for command in commands {
        arguments.extend([OsStr::new("-c"), OsStr::new(command)]);
    }
    arguments.push(device.as_os_str());
    Ok(tools.lines(XFS_DB, &arguments, take)?)
}

fn fields(
    tools: &Tools,
    device: &Path,
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

/// `name = 12`
fn assigned(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(" = ")?;
    Some((name, value.parse().ok()?))
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
