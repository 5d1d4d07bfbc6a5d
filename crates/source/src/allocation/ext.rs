//! ext2, ext3 and ext4, by `dumpe2fs`.
//!
//! A bitmap can be wrong while the superblock says clean and all counts agree. With `metadata_csum` each bitmap has a
//! checksum, and `dumpe2fs` fails when one does not match. Without it the whole file system is checked by `e2fsck`, as
//! far as there is time.

use super::ranges::Ranges;
use super::{FileSystem, INPUT, OpenDisk, Tool, Tools, Unknown};

const DUMPE2FS: Tool = Tool::reader("dumpe2fs", "e2fsprogs");
const E2FSCK: Tool = Tool::reader("e2fsck", "e2fsprogs");
const KIND: &str = "ext";

/// The tool's answer about a file system.
#[derive(Debug, Default)]
struct Dump {
    is_clean: bool,
    needs_recovery: bool,
    has_checksums: bool,
    blocks: Option<u64>,
    block_bytes: Option<u64>,
    counted: Option<u64>,
    ranges: Ranges,
    is_understood: bool,
}

/// Inspects the file system that begins at `offset_bytes` of the disk.
pub(super) fn inspect(
    tools: &Tools,
    disk: &OpenDisk,
    offset_bytes: u64,
) -> Result<FileSystem, Unknown> {
    let name = format!("{INPUT}?offset={offset_bytes}");
    let mut dump = Dump::new();
    tools.lines(DUMPE2FS, disk, &[&name], |line| dump.read_line(line))?;
    let has_checksums = dump.has_checksums;
    let file_system = dump.file_system()?;
    if !has_checksums && tools.run(E2FSCK, disk, &["-fn", &name], |_| {})?.code != 0 {
        return Err(Unknown::Damaged(KIND));
    }
    Ok(file_system)
}

impl Dump {
    fn new() -> Self {
        Self {
            is_understood: true,
            ..Self::default()
        }
    }

    /// Lines of the superblock begin at the margin, those of a group are indented.
    fn read_line(&mut self, line: &str) {
        if let Some(list) = line.strip_prefix("  Free blocks:") {
            self.is_understood &= list
                .split(',')
                .map(str::trim)
                .filter(|range| !range.is_empty())
                .all(|range| self.add(range));
            return;
        }
        let Some((name, value)) = line.split_once(':') else {
            return;
        };
        let value = value.trim();
        match name {
            "Filesystem state" => self.is_clean = value == "clean",
            "Filesystem features" => {
                let has = |name| value.split(' ').any(|feature| feature == name);
                self.needs_recovery = has("needs_recovery");
                self.has_checksums = has("metadata_csum");
            }
            "Block count" => self.blocks = value.parse().ok(),
            "Free blocks" => self.counted = value.parse().ok(),
            "Block size" => {
                self.block_bytes = value.parse().ok();
                self.ranges = Ranges::new(self.block_bytes.unwrap_or(0));
            }
            _ => {}
        }
    }

    fn add(&mut self, range: &str) -> bool {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => {
                self.ranges.add(first, last - first + 1);
                true
            }
            _ => false,
        }
    }

    fn file_system(self) -> Result<FileSystem, Unknown> {
        if !self.is_clean || self.needs_recovery {
            return Err(Unknown::Unclean(KIND));
        }
        let (Some(counted), Some(blocks), Some(block_bytes), true) = (
            self.counted,
            self.blocks,
            self.block_bytes,
            self.is_understood,
        ) else {
            return Err(Unknown::Output(KIND));
        };
        let listed = self.ranges.blocks();
        if listed != counted {
            return Err(Unknown::Sum {
                kind: KIND,
                counted,
                listed,
            });
        }
        Ok(FileSystem {
            size_bytes: blocks.saturating_mul(block_bytes),
            free: self.ranges.in_order().ok_or(Unknown::Output(KIND))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use chunks::ByteRange;

    use super::*;

    const CLEAN: &str = "Filesystem features:      has_journal extent\n\
        Filesystem state:         clean\n\
        Block count:              1024\n\
        Free blocks:              513\n\
        Block size:               4096\n\
        \n\
        Group 0: (Blocks 0-1023)\n\
        \x20 513 free blocks, 9 free inodes\n\
        \x20 Free blocks: 100-611, 700\n\
        Group 1: (Blocks 1024-1025)\n\
        \x20 Free blocks: \n";

    fn parsed(text: &str) -> Result<FileSystem, Unknown> {
        let mut dump = Dump::new();
        text.lines().for_each(|line| dump.read_line(line));
        dump.file_system()
    }

    #[test]
    fn only_a_clean_file_system_that_adds_up_is_believed() {
        let expected = ByteRange {
            start: 100 * 4096,
            end: 612 * 4096,
        };
        let whole = FileSystem {
            size_bytes: 1024 * 4096,
            free: vec![expected],
        };
        assert_eq!(parsed(CLEAN), Ok(whole));
        for (what, instead) in [
            ("has_journal extent", "has_journal needs_recovery extent"),
            ("state:         clean", "state:         not clean"),
            ("state:         clean", "state:         clean with errors"),
        ] {
            let unclean = CLEAN.replace(what, instead);
            assert_eq!(parsed(&unclean), Err(Unknown::Unclean("ext")), "{instead}");
        }
        let sum = parsed(&CLEAN.replace(", 700", "")).unwrap_err();
        assert!(
            matches!(
                sum,
                Unknown::Sum {
                    counted: 513,
                    listed: 512,
                    ..
                }
            ),
            "{sum}"
        );
        let odd = CLEAN.replace("100-611", "611-100");
        assert_eq!(parsed(&odd), Err(Unknown::Output("ext")));
        let twice = CLEAN.replace("100-611, 700", "100-356, 101-356");
        assert_eq!(parsed(&twice), Err(Unknown::Output("ext")));
        assert_eq!(parsed(""), Err(Unknown::Unclean("ext")));
    }
}
