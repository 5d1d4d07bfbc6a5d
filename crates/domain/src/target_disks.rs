//! The disks of an image, derived from the requested sizes and the disks of the source.
//!
//! A disk of the image begins with the source's bytes and ends with zeros, so it can't be smaller than the source's
//! disk. Disks without a requested size get the size of the source's disk, so that no part of a server is left out
//! silently.

use crate::disk::{DiskIndex, SourceDisk, TargetDisk, gib_rounded_up};

/// The requested sizes can't be those of the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTargetDisks {
    /// The source has no disk with this index.
    #[error("the source has no disk with index {0}")]
    Unknown(DiskIndex),
    /// Two sizes for one disk.
    #[error("the disk with index {0} is named twice")]
    Repeated(DiskIndex),
    /// The source's disk does not fit.
    #[error(
        "disk {index} of the source ({path}) has {source_bytes} bytes and needs {needed_gib} GiB, but {target_gib} GiB were asked for: ask for \
         {needed_gib} GiB or more"
    )]
    TooSmall {
        /// The disk's index.
        index: DiskIndex,
        /// Path of the disk on the source.
        path: String,
        /// The size of the source's disk in bytes.
        source_bytes: u64,
        /// The smallest size that holds it, in GiB.
        needed_gib: u64,
        /// The requested size in GiB.
        target_gib: u32,
    },
}

/// Returns the disks of the image, by index. They are `asked`, and for every other disk of `source` its own size
/// rounded up to whole GiB.
///
/// # Errors
/// See [`InvalidTargetDisks`].
pub fn choose(
    source: &[SourceDisk],
    asked: &[TargetDisk],
) -> Result<Vec<TargetDisk>, InvalidTargetDisks> {
    for (position, disk) in asked.iter().enumerate() {
        if asked[..position]
            .iter()
            .any(|earlier| earlier.index == disk.index)
        {
            return Err(InvalidTargetDisks::Repeated(disk.index));
        }
        if !source.iter().any(|known| known.index == disk.index) {
            return Err(InvalidTargetDisks::Unknown(disk.index));
        }
    }
    let mut chosen = source
        .iter()
        .map(
            |disk| match asked.iter().find(|asked| asked.index == disk.index) {
                Some(asked) => fitting(disk, *asked),
                None => Ok(TargetDisk {
                    index: disk.index,
                    // An empty disk still needs a size that an image can have.
                    size_gib: u32::try_from(gib_rounded_up(disk.size_bytes).max(1))
                        .unwrap_or(u32::MAX),
                }),
            },
        )
        .collect::<Result<Vec<_>, _>>()?;
    chosen.sort_by_key(|disk| disk.index);
    Ok(chosen)
}

fn fitting(source: &SourceDisk, asked: TargetDisk) -> Result<TargetDisk, InvalidTargetDisks> {
    if asked.size_bytes() >= source.size_bytes {
        return Ok(asked);
    }
    Err(InvalidTargetDisks::TooSmall {
        index: source.index,
        path: source.path.clone(),
        source_bytes: source.size_bytes,
        needed_gib: gib_rounded_up(source.size_bytes),
        target_gib: asked.size_gib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::GIB;

    fn source(index: u16, size_bytes: u64) -> SourceDisk {
        SourceDisk {
            index: DiskIndex(index),
            path: format!("/dev/vd{index}"),
            size_bytes,
            used_bytes: None,
            partitions: Vec::new(),
            layout: crate::disk::DiskLayout::default(),
            identity: None,
            in_use: String::new(),
        }
    }

    fn target(index: u16, size_gib: u32) -> TargetDisk {
        TargetDisk {
            index: DiskIndex(index),
            size_gib,
        }
    }

    #[test]
    fn disks_that_nobody_named_keep_their_size() {
        let disks = [source(2, 5 * GIB + 1), source(0, 20 * GIB), source(1, 512)];
        assert_eq!(
            choose(&disks, &[target(0, 40)]),
            Ok(vec![target(0, 40), target(1, 1), target(2, 6)])
        );
    }

    #[test]
    fn a_target_as_large_as_the_source_fits_and_one_byte_less_does_not() {
        assert!(choose(&[source(0, 20 * GIB)], &[target(0, 20)]).is_ok());
        let refused = choose(&[source(0, 20 * GIB + 1)], &[target(0, 20)]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "disk 0 of the source (/dev/vd0) has 21474836481 bytes and needs 21 GiB, but 20 GiB were asked for: ask for \
             21 GiB or more"
        );
    }

    #[test]
    fn unknown_and_repeated_disks_are_refused() {
        let disks = [source(0, GIB), source(1, GIB)];
        assert_eq!(
            choose(&disks, &[target(2, 20)]),
            Err(InvalidTargetDisks::Unknown(DiskIndex(2)))
        );
        assert_eq!(
            choose(&disks, &[target(1, 20), target(1, 20)]),
            Err(InvalidTargetDisks::Repeated(DiskIndex(1)))
        );
    }
}
