//! Stretches of a disk in bytes.

use serde::{Deserialize, Serialize};

/// A stretch of a disk, in bytes, as the source's file system tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
}

/// What is left of extents without others. Both are in order.
pub fn without(extents: &[Extent], others: &[Extent]) -> Vec<Extent> {
    let mut left = Vec::new();
    let mut next = 0;
    for extent in extents {
        let mut start = extent.start;
        while let Some(other) = others.get(next) {
            if start < other.start.min(extent.end) {
                left.push(Extent {
                    start,
                    end: other.start.min(extent.end),
                });
            }
            start = start.max(other.end.min(extent.end));
            if other.end > extent.end {
                // It may reach into the next extent.
                break;
            }
            next += 1;
        }
        if start < extent.end {
            left.push(Extent {
                start,
                end: extent.end,
            });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A byte is left if it was there and is in none of the others.
        #[test]
        fn without_leaves_what_only_the_first_have(
            mut ours in proptest::collection::vec(0_u64..200, 0..12), mut others in proptest::collection::vec(0_u64..200, 0..12)
        ) {
            let extents = |cuts: &mut Vec<u64>| -> Vec<Extent> {
                cuts.sort_unstable();
                cuts.chunks_exact(2).map(|pair| Extent { start: pair[0], end: pair[1] }).collect()
            };
            let (ours, others) = (extents(&mut ours), extents(&mut others));
            let left = without(&ours, &others);
            let holds = |extents: &[Extent], byte| extents.iter().any(|extent| (extent.start..extent.end).contains(&byte));
            for byte in 0..200 {
                prop_assert_eq!(holds(&left, byte), holds(&ours, byte) && !holds(&others, byte), "byte {}", byte);
            }
            prop_assert!(left.iter().all(|extent| extent.start < extent.end));
            prop_assert!(left.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
