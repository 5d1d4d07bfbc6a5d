//! btrfs on one device, by `btrfs inspect-internal`: extents have logical addresses, and chunks say where on the device
//! these are.
//!
//! Each tree block has a checksum. The tool complains of one that does not match and leaves out what is in it, which
//! the sum shows as well.

use chunks::ByteRange;

use super::ranges::Ranges;
use super::{FileSystem, INPUT, OpenDisk, Tool, Tools, Unknown};

const BTRFS: Tool = Tool::reader("btrfs", "btrfs-progs");
const KIND: &str = "btrfs";

/// The file system leaves this to boot loaders.
const RESERVED_BYTES: u64 = 1 << 20;

/// Places of the copies of the superblock, which no extent lists, and the size of each.
const SUPERBLOCKS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SUPERBLOCK_BYTES: u64 = 4096;

/// Most ranges of used space: beyond that the map is no small thing any more.
const MOST_USED: usize = 4 << 20;

/// Flags of file systems that lay out their data in other ways, and how the tool names those that it does not know.
const OTHER_LAYOUTS: [&str; 6] = [
    "SEEDING",
    "ZONED",
    "EXTENT_TREE_V2",
    "RAID_STRIPE_TREE",
    "REMAP_TREE",
    "unknown",
];

/// Parts of what the tool complains with where a checksum or the content of a block is wrong.
const OF_DAMAGE: [&str; 4] = ["checksum", "parent transid", "bad tree block", "ERROR"];

/// Inspects the file system on all of a device.
pub(super) fn inspect(tools: &Tools, device: &OpenDisk) -> Result<FileSystem, Unknown> {
    let mut superblock = Superblock::default();
    ask(tools, "dump-super", &[], device, |line| {
        superblock.read_line(line);
    })?;
    superblock.check()?;
    let mut chunks = Chunks::default();
    ask(tools, "dump-tree", &["-t", "chunk"], device, |line| {
        chunks.read_line(line);
    })?;
    let mut used = Used::new(superblock.node_bytes);
    ask(tools, "dump-tree", &["-t", "extent"], device, |line| {
        used.read_line(line);
    })?;
    if used.bytes != superblock.used_bytes {
        return Err(Unknown::Sum {
            kind: KIND,
            counted: superblock.used_bytes,
            listed: used.bytes,
        });
    }
    let free = between(chunks.on_device(&used)?, superblock.total_bytes);
    Ok(FileSystem {
        size_bytes: superblock.total_bytes,
        free: free.ok_or(Unknown::Output(KIND))?,
    })
}

fn ask(
    tools: &Tools,
    command: &str,
    options: &[&str],
    device: &OpenDisk,
    take: impl FnMut(&str),
) -> Result<(), Unknown> {
    let mut arguments = vec!["inspect-internal", command];
    arguments.extend(options);
    arguments.push(INPUT);
    let ended = tools.lines(BTRFS, device, &arguments, take)?;
    let is_damaged = OF_DAMAGE.iter().any(|part| ended.errors.contains(part));
    if is_damaged {
        return Err(Unknown::Damaged(KIND));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Superblock {
    total_bytes: u64,
    used_bytes: u64,
    node_bytes: u64,
    devices: u64,
    log_root: Option<u64>,
    has_other_layout: bool,
}

impl Superblock {
    fn read_line(&mut self, line: &str) {
        self.has_other_layout |= OTHER_LAYOUTS.iter().any(|flag| line.contains(flag));
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) else {
            return;
        };
        match name {
            "total_bytes" => self.total_bytes = value,
            "bytes_used" => self.used_bytes = value,
            "nodesize" => self.node_bytes = value,
            "num_devices" => self.devices = value,
            "log_root" => self.log_root = Some(value),
            _ => {}
        }
    }

    fn check(&self) -> Result<(), Unknown> {
        if self.devices > 1 || self.has_other_layout {
            return Err(Unknown::Content(
                "btrfs over several devices or with another layout".to_owned(),
            ));
        }
        match self.log_root {
            Some(0) if self.devices == 1 && self.node_bytes > 0 => Ok(()),
            Some(0) | None => Err(Unknown::Output(KIND)),
            Some(_) => Err(Unknown::Unclean(KIND)),
        }
    }
}

/// The key of an item: `item 3 key (A KIND B) …`.
fn key(line: &str) -> Option<(&str, &str, u64)> {
    let rest = line.trim_start().strip_prefix("item ")?;
    let (_, rest) = rest.split_once(" key (")?;
    let mut words = rest.split_once(')')?.0.split(' ');
    Some((words.next()?, words.next()?, words.next()?.parse().ok()?))
}

/// The logical addresses that extents take, in order.
#[derive(Debug)]
struct Used {
    node_bytes: u64,
    bytes: u64,
    at: Vec<ByteRange>,
}

impl Used {
    fn new(node_bytes: u64) -> Self {
        Self {
            node_bytes,
            bytes: 0,
            at: Vec::new(),
        }
    }

    fn read_line(&mut self, line: &str) {
        let (start, bytes) = match key(line) {
            Some((start, "EXTENT_ITEM", bytes)) => (start, bytes),
            Some((start, "METADATA_ITEM", _)) => (start, self.node_bytes),
            _ => return,
        };
        // An address that is no number is left out of the sum, which then does not agree.
        let Ok(start) = start.parse::<u64>() else {
            return;
        };
        self.bytes = self.bytes.saturating_add(bytes);
        let end = start.saturating_add(bytes);
        let has_room = self.at.len() < MOST_USED;
        match self.at.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ if has_room => self.at.push(ByteRange { start, end }),
            _ => {}
        }
    }
}

/// The map from logical addresses to the device.
#[derive(Debug, Default)]
struct Chunks {
    chunks: Vec<Chunk>,
    is_spread: bool,
}

#[derive(Debug)]
struct Chunk {
    logical: u64,
    bytes: u64,
    stripes: u64,
    /// Starts of its copies.
    copies: Vec<u64>,
}

impl Chunks {
    fn read_line(&mut self, line: &str) {
        if let Some((_, "CHUNK_ITEM", logical)) = key(line) {
            self.chunks.push(Chunk {
                logical,
                bytes: 0,
                stripes: 0,
                copies: Vec::new(),
            });
            return;
        }
        let Some(chunk) = self.chunks.last_mut() else {
            return;
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse().unwrap_or(0);
        match words.as_slice() {
            ["length", bytes, .., "type", kind] => {
                chunk.bytes = number(bytes);
                let copy = kind.rsplit('|').next();
                self.is_spread |= !matches!(copy, Some("single" | "DUP"));
            }
            ["num_stripes", stripes, ..] => chunk.stripes = number(stripes),
            ["stripe", _, "devid", _, "offset", offset] => chunk.copies.push(number(offset)),
            _ => {}
        }
    }

    /// Used ranges of the device, in any order.
    fn on_device(&self, used: &Used) -> Result<Vec<ByteRange>, Unknown> {
        if self.is_spread {
            return Err(Unknown::Content("btrfs with RAID".to_owned()));
        }
        let mut on_device = Vec::new();
        let mut mapped: u64 = 0;
        for chunk in &self.chunks {
            let end = chunk.logical.saturating_add(chunk.bytes);
            let is_understood = chunk.bytes > 0
                && !chunk.copies.contains(&0)
                && chunk.copies.len() as u64 == chunk.stripes;
            if !is_understood {
                return Err(Unknown::Output(KIND));
            }
            let first = used
                .at
                .partition_point(|extent| extent.end <= chunk.logical);
            for extent in used.at[first..]
                .iter()
                .take_while(|extent| extent.start < end)
            {
                let from = extent.start.max(chunk.logical) - chunk.logical;
                let until = extent.end.min(end) - chunk.logical;
                mapped += until - from;
                on_device.extend(chunk.copies.iter().map(|copy| ByteRange {
                    start: copy.saturating_add(from),
                    end: copy.saturating_add(until),
                }));
            }
        }
        // An extent outside of all chunks, or one that did not fit into the list.
        if mapped != used.bytes {
            return Err(Unknown::Output(KIND));
        }
        Ok(on_device)
    }
}

/// Returns the space between used parts of a device, without its first MiB and the superblocks; `None` if something is
/// used beyond its end.
fn between(mut used: Vec<ByteRange>, total_bytes: u64) -> Option<Vec<ByteRange>> {
    used.extend(SUPERBLOCKS.map(|start| ByteRange {
        start,
        end: start + SUPERBLOCK_BYTES,
    }));
    used.retain(|extent| extent.start < total_bytes || !SUPERBLOCKS.contains(&extent.start));
    used.sort_unstable_by_key(|extent| extent.start);
    let mut ranges = Ranges::new(1);
    let mut next = RESERVED_BYTES;
    for extent in used {
        if extent.end > total_bytes {
            return None;
        }
        if next < extent.start {
            ranges.add(next, extent.start - next);
        }
        next = next.max(extent.end);
    }
    if next < total_bytes {
        ranges.add(next, total_bytes - next);
    }
    ranges.in_order()
}
