//! A set of chunks of a disk: one bit for each.

/// Chunks of one disk.
#[derive(Debug)]
pub struct ChunkSet {
    words: Vec<u64>,
}

impl ChunkSet {
    /// Of a disk of so many chunks, none.
    pub fn new(chunks: u64) -> Self {
        let words = usize::try_from(chunks.div_ceil(64)).expect("a bit for each chunk fits memory");
        Self {
            words: vec![0; words],
        }
    }

    /// Adds a stretch; `false` if one of it was in the set before or is none of the disk's.
    pub fn insert(&mut self, start: u64, count: u64) -> bool {
        let mut is_new = true;
        let is_whole = self.each(start, count, |word, mask| {
            is_new &= *word & mask == 0;
            *word |= mask;
        });
        is_new && is_whole
    }

    /// Takes out a stretch.
    pub fn remove(&mut self, start: u64, count: u64) {
        let _is_whole = self.each(start, count, |word, mask| *word &= !mask);
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Its stretches in order, as first chunk and number.
    pub fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = self.find(next, true)?;
            let end = self
                .find(start, false)
                .unwrap_or(self.words.len() as u64 * 64);
            next = end;
            Some((start, end - start))
        })
    }

    /// The first chunk from `from` on that is in the set, or that is not.
    fn find(&self, from: u64, is_in: bool) -> Option<u64> {
        let mut chunk = from;
        while let Some(word) = self.words.get(usize::try_from(chunk / 64).ok()?) {
            let bits = (if is_in { *word } else { !*word }) >> (chunk % 64);
            if bits != 0 {
                return Some(chunk + u64::from(bits.trailing_zeros()));
            }
            chunk = (chunk / 64 + 1) * 64;
        }
        None
    }

    /// Calls `act` for the bits of a stretch; `false` if it does not end on the disk.
    fn each(&mut self, start: u64, count: u64, mut act: impl FnMut(&mut u64, u64)) -> bool {
        let Some(end) = start.checked_add(count) else {
            return false;
        };
        let mut chunk = start;
        while chunk < end {
            let word = usize::try_from(chunk / 64).ok();
            let Some(word) = word.and_then(|word| self.words.get_mut(word)) else {
                return false;
            };
            let from = chunk % 64;
            let bits = (end - chunk).min(64 - from);
            act(word, (u64::MAX >> (64 - bits)) << from);
            chunk += bits;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_chunks(
            stretches in prop::collection::vec((any::<bool>(), 0_u64..200, 0_u64..100), 0..20),
        ) {
            let mut chunks = ChunkSet::new(320);
            let mut set = BTreeSet::new();
            for (is_added, start, count) in stretches {
                if is_added {
                    let is_new = (start..start + count).all(|chunk| !set.contains(&chunk));
                    set.extend(start..start + count);
                    prop_assert_eq!(chunks.insert(start, count), is_new);
                } else {
                    set.retain(|chunk| !(start..start + count).contains(chunk));
                    chunks.remove(start, count);
                }
                let found: Vec<(u64, u64)> = chunks.stretches().collect();
                let listed = found.iter().flat_map(|(start, count)| *start..start + count);
                prop_assert!(listed.eq(set.iter().copied()));
                prop_assert!(found.windows(2).all(|two| two[0].0 + two[0].1 < two[1].0), "{found:?}");
            }
            chunks.clear();
            prop_assert_eq!(chunks.stretches().count(), 0);
        }
    }

    #[test]
    fn what_is_none_of_the_disk_is_refused() {
        assert!(!ChunkSet::new(64).insert(63, 2));
        assert!(!ChunkSet::new(64).insert(u64::MAX, 2));
    }
}
