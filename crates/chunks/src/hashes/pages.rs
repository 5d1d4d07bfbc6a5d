//! The hashes themselves, in pages: those used last in memory, the others in a file without a name.
//!
//! The file is made when memory is full for the first time, lies in the directory that the caller names, takes 32 MiB
//! for each TiB of data, and is gone with its process. It is read and written in pages, not mapped: what it holds
//! belongs to the page cache, which the kernel takes back when it needs it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use lru::LruCache;

use super::Hash;
use crate::ChunkIndex;

/// Hashes in a page: 8 KiB. Those of neighbours, since disks are gone through in order.
const PAGE: u64 = 256;
const PAGE_BYTES: u64 = PAGE * size_of::<Hash>() as u64;

/// Pages in memory: 4 MiB, enough for 128 GiB of data.
const IN_MEMORY: usize = 512;

#[derive(Debug)]
pub(super) struct Pages {
    in_memory: LruCache<u64, Page>,
    most_in_memory: usize,
    directory: Option<PathBuf>,
    file: Option<File>,
}

struct Page {
    hashes: Box<[Hash]>,
    /// Not yet in the file like this.
    is_changed: bool,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} hashes", self.hashes.len())
    }
}

impl Pages {
    /// Without a directory everything stays in memory.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self {
            in_memory: LruCache::unbounded(),
            most_in_memory: IN_MEMORY,
            directory,
            file: None,
        }
    }

    /// Returns the hash that was set last; anything if none was.
    pub(super) fn get(&mut self, chunk: ChunkIndex) -> io::Result<Hash> {
        Ok(self.page(chunk.0 / PAGE)?.hashes[within(chunk)])
    }

    pub(super) fn set(&mut self, chunk: ChunkIndex, hash: Hash) -> io::Result<()> {
        let page = self.page(chunk.0 / PAGE)?;
        page.hashes[within(chunk)] = hash;
        page.is_changed = true;
        Ok(())
    }

    fn page(&mut self, number: u64) -> io::Result<&mut Page> {
        if !self.in_memory.contains(&number) {
            if self.in_memory.len() >= self.most_in_memory {
                self.evict_oldest()?;
            }
            let page = self.load(number)?;
            self.in_memory.put(number, page);
        }
        let page = self.in_memory.get_mut(&number);
        Ok(page.expect("the page has just been put there"))
    }

    /// Says where the file is that can't be used.
    fn failed(&self) -> impl Fn(io::Error) -> io::Error + use<> {
        let directory = self.directory.clone().unwrap_or_default();
        move |error| {
            let what = format!(
                "a temporary file for hashes in {}: {error}",
                directory.display()
            );
            io::Error::new(error.kind(), what)
        }
    }

    fn load(&self, number: u64) -> io::Result<Page> {
        let mut hashes = vec![[0; 32]; PAGE as usize].into_boxed_slice();
        if let Some(file) = &self.file {
            let bytes = hashes.as_flattened_mut();
            let mut filled = 0;
            // Behind the end of the file are pages that were never put away.
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], number * PAGE_BYTES + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.failed()(error)),
                }
            }
        }
        Ok(Page {
            hashes,
            is_changed: false,
        })
    }

    /// Makes room: the page that was not used for the longest time goes to the file.
    fn evict_oldest(&mut self) -> io::Result<()> {
        let (Some(directory), Some((&number, page))) = (&self.directory, self.in_memory.peek_lru())
        else {
            return Ok(());
        };
        if page.is_changed {
            let failed = self.failed();
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile_in(directory).map_err(&failed)?),
            };
            file.write_all_at(page.hashes.as_flattened(), number * PAGE_BYTES)
                .map_err(failed)?;
        }
        self.in_memory.pop_lru();
        Ok(())
    }
}

fn within(chunk: ChunkIndex) -> usize {
    usize::try_from(chunk.0 % PAGE).expect("a page is small")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With room for a few pages only, it gives back what was set last.
        #[test]
        fn pages_come_back_as_they_went(uses in prop::collection::vec((0_u64..40 * PAGE, any::<Option<u8>>()), 1..200)) {
            let directory = tempfile::tempdir().unwrap();
            let mut pages = Pages::new(Some(directory.path().to_owned()));
            pages.most_in_memory = 3;
            let mut plain = HashMap::new();
            for (chunk, byte) in uses {
                let chunk = ChunkIndex(chunk);
                match byte {
                    Some(byte) => {
                        pages.set(chunk, [byte; 32]).unwrap();
                        plain.insert(chunk, [byte; 32]);
                    }
                    None => prop_assert_eq!(pages.get(chunk).unwrap(), plain.get(&chunk).copied().unwrap_or_default()),
                }
                prop_assert!(pages.in_memory.len() <= 3);
            }
            for (chunk, hash) in plain {
                prop_assert_eq!(pages.get(chunk).unwrap(), hash);
            }
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
        }
    }

    #[test]
    fn a_place_that_takes_no_file_is_an_error_and_nothing_is_lost() {
        let mut pages = Pages::new(Some(PathBuf::from("/nowhere")));
        pages.most_in_memory = 1;
        pages.set(ChunkIndex(0), [1; 32]).unwrap();
        assert!(pages.set(ChunkIndex(PAGE), [2; 32]).is_err());
        assert_eq!(pages.get(ChunkIndex(0)).unwrap(), [1; 32]);
    }
}
