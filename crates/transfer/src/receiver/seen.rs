//! Which chunks a connection has sent: each may come once.
//!
//! That each comes once is what lets several threads write without asking each other: no two writes of a connection ever touch the same
//! chunk, so the order in which they land and the order in which they are recorded need not agree.

/// One bit for each chunk of a disk.
#[derive(Debug)]
pub(super) struct Seen {
    words: Vec<u64>,
}

impl Seen {
    /// Of a disk of so many chunks, none.
    pub(super) fn new(chunks: u64) -> Self {
        let words = usize::try_from(chunks.div_ceil(64)).expect("a bit for each chunk fits memory");
        Self {
            words: vec![0; words],
        }
    }

    /// Marks a stretch; `false` if one of it was marked before or is none of the disk's.
    pub(super) fn mark(&mut self, start: u64, count: u64) -> bool {
        let mut is_new = true;
        let Some(end) = start.checked_add(count) else {
            return false;
        };
        let mut chunk = start;
        while chunk < end {
            let Some(word) = usize::try_from(chunk / 64)
                .ok()
                .and_then(|word| self.words.get_mut(word))
            else {
                return false;
            };
            let from = chunk % 64;
            let bits = (end - chunk).min(64 - from);
            let mask = (u64::MAX >> (64 - bits)) << from;
            is_new &= *word & mask == 0;
            *word |= mask;
            chunk += bits;
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_chunks(stretches in prop::collection::vec((0_u64..200, 0_u64..100), 0..20)) {
            let mut seen = Seen::new(320);
            let mut set = BTreeSet::new();
            for (start, count) in stretches {
                let is_new = (start..start + count).all(|chunk| !set.contains(&chunk));
                set.extend(start..start + count);
                prop_assert_eq!(seen.mark(start, count), is_new);
            }
        }
    }

    #[test]
    fn what_is_none_of_the_disk_is_refused() {
        assert!(!Seen::new(64).mark(63, 2));
        assert!(!Seen::new(64).mark(u64::MAX, 2));
    }
}
