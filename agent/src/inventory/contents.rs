//! Contents that identify a disk: its partition table, or a file system that occupies the whole disk.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use source::allocation::ToolError;
use source::partitions::{Partition, file_system_of, table_of};

/// The kind of table of a disk that has none.
const NO_TABLE: &str = "none";

/// The tools' answers about a disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Contents {
    /// `gpt`, `dos`, another name, or `none`; `None` if it can't be determined.
    pub table: Option<String>,
    /// The id in the table, with its kind.
    pub table_id: Option<String>,
    /// The UUID of a file system on the whole disk.
    pub file_system: Option<String>,
    /// In the order of the table.
    pub partitions: Vec<Partition>,
}

/// The tools' last answers about each disk. A tool that is slow once does not change the identity of a disk.
#[derive(Debug, Default)]
pub(super) struct LastContents(HashMap<[u64; 3], Contents>);

impl LastContents {
    /// Queries the tools. If they give no answer, the last one for the same device or file is used.
    pub fn read(&mut self, disk: &Path, metadata: &Metadata) -> Contents {
        let answer = of(disk).inspect_err(|error| {
            tracing::debug!(disk = %disk.display(), %error, "its partitions are not known");
        });
        let key = [metadata.dev(), metadata.ino(), metadata.rdev()];
        self.take(key, answer.ok())
    }

    fn take(&mut self, key: [u64; 3], answer: Option<Contents>) -> Contents {
        match answer {
            Some(contents) => {
                self.0.insert(key, contents.clone());
                contents
            }
            None => self.0.get(&key).cloned().unwrap_or_default(),
        }
    }
}

fn of(disk: &Path) -> Result<Contents, ToolError> {
    Ok(match table_of(disk)? {
        Some(table) => Contents {
            table_id: table.id.map(|id| format!("{} {id}", table.kind)),
            table: Some(table.kind),
            file_system: None,
            partitions: table.partitions,
        },
        None => Contents {
            table: Some(NO_TABLE.to_owned()),
            file_system: file_system_of(disk)?,
            ..Contents::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_whose_tools_fail_is_what_it_was() {
        let contents = Contents {
            table: Some("gpt".to_owned()),
            table_id: Some("gpt 1".to_owned()),
            ..Contents::default()
        };
        let mut last = LastContents::default();
        let (disk, other) = ([1, 2, 3], [1, 2, 4]);
        assert_eq!(last.take(disk, None), Contents::default());
        assert_eq!(last.take(disk, Some(contents.clone())), contents);
        assert_eq!(last.take(disk, None), contents);
        assert_eq!(last.take(other, None), Contents::default());
    }

    #[test]
    fn a_disk_without_a_table_has_no_partitions() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        std::fs::write(&disk, [1; 8192]).unwrap();
        let contents = LastContents::default().read(&disk, &disk.metadata().unwrap());
        let wanted = Contents {
            table: Some("none".to_owned()),
            ..Contents::default()
        };
        assert_eq!(contents, wanted);
    }
}
