//! One page of a list. The API numbers pages; the database is read by keyset.
//!
//! The end of each page is remembered for a while. A call for the next page is served from there, at once however deep
//! the page is. No row is repeated or left out because others came or went meanwhile. A page whose predecessor was not
//! read from this process is reached by offset from the beginning, over an index.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::TenantId;
use sqlx::types::chrono::{DateTime, Utc};

/// Position and size of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Number of the page, from 1.
    pub number: u32,
    /// Maximum number of rows in the page.
    pub size: u32,
}

/// A page, and the number of rows in the whole list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The rows of the page, newest first.
    pub rows: Vec<T>,
    /// Number of rows on all pages.
    pub total: i64,
}

/// Time that the end of a page is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Maximum number of ends that are remembered.
const REMEMBERED: usize = 10_000;

/// Ends of pages, shared by all clones of a store.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageEnds {
    ends: Arc<Mutex<HashMap<Key, (Instant, RowKey)>>>,
}

/// SHA-256 of a filter, so that every remembered page has the same size, whatever the filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FilterDigest([u8; 32]);

/// A page of a list: the tenant, the list and the filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    list: &'static str,
    filter: FilterDigest,
    number: u32,
    size: u32,
}

/// Sort key of rows, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RowKey {
    created_at: DateTime<Utc>,
    id: String,
}

/// The position from which a page is read.
#[derive(Debug)]
pub(crate) struct Start {
    ends: PageEnds,
    key: Key,
    behind: Option<RowKey>,
    offset: i64,
}

impl Page {
    pub(crate) fn limit(self) -> i64 {
        i64::from(self.size)
    }

    pub(crate) fn offset(self) -> i64 {
        i64::from(self.number.saturating_sub(1)) * i64::from(self.size)
    }
}

impl FilterDigest {
    fn of(filter: &impl Debug) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{filter:?}").as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl PageEnds {
    /// Returns the position from which to read `page` of this list. It is a row if the page's predecessor is
    /// remembered, else an offset from the beginning.
    pub(crate) fn start(
        &self,
        tenant: &TenantId,
        list: &'static str,
        filter: &impl Debug,
        page: Page,
    ) -> Start {
        let key = Key {
            tenant: tenant.clone(),
            list,
            filter: FilterDigest::of(filter),
            number: page.number,
            size: page.size,
        };
        let before = Key {
            number: page.number.saturating_sub(1),
            ..key.clone()
        };
        let behind = self
            .lock()
            .get(&before)
            .filter(|(since, _)| since.elapsed() < REMEMBERED_FOR)
            .map(|(_, end)| end.clone());
        Start {
            ends: self.clone(),
            key,
            offset: if behind.is_some() { 0 } else { page.offset() },
            behind,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Instant, RowKey)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Start {
    /// Returns the page.
    pub(crate) fn page(&self) -> Page {
        Page {
            number: self.key.number,
            size: self.key.size,
        }
    }

    /// Returns the row behind which the page begins, if it is known.
    pub(crate) fn behind(&self) -> Option<(DateTime<Utc>, &str)> {
        self.behind
            .as_ref()
            .map(|row| (row.created_at, row.id.as_str()))
    }

    /// Returns the number of rows to skip from there.
    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }

    /// Remembers the end of the page. A page that is not full is the last one.
    pub(crate) fn ended(self, rows: usize, last: Option<(DateTime<Utc>, &str)>) {
        let Some((created_at, id)) = last.filter(|_| rows >= self.key.size as usize) else {
            return;
        };
        let end = RowKey {
            created_at,
            id: id.to_owned(),
        };
        let mut ends = self.ends.lock();
        if ends.len() >= REMEMBERED {
            ends.retain(|_, (since, _)| since.elapsed() < REMEMBERED_FOR);
        }
        if ends.len() < REMEMBERED {
            ends.insert(self.key, (Instant::now(), end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> Page {
        Page { number, size: 2 }
    }

    #[test]
    fn a_page_begins_where_its_predecessor_ended_if_that_was_full() {
        let ends = PageEnds::default();
        let tenant = TenantId::generate();
        let at = DateTime::from_timestamp(1_800_000_000, 1000).unwrap();
        let second = ends.start(&tenant, "job", &"all", page(2));
        assert_eq!((second.behind(), second.offset()), (None, 2));

        ends.start(&tenant, "job", &"all", page(1))
            .ended(2, Some((at, "j-2")));
        let second = ends.start(&tenant, "job", &"all", page(2));
        assert_eq!((second.behind(), second.offset()), (Some((at, "j-2")), 0));
        second.ended(1, Some((at, "j-1")));
        let third = ends.start(&tenant, "job", &"all", page(3));
        assert_eq!((third.behind(), third.offset()), (None, 4));
    }

    #[test]
    fn lists_of_others_and_with_other_filters_end_elsewhere() {
        let ends = PageEnds::default();
        let (one, other) = (TenantId::generate(), TenantId::generate());
        let at = DateTime::from_timestamp(1_800_000_000, 1000).unwrap();
        ends.start(&one, "job", &"all", page(1))
            .ended(2, Some((at, "j-2")));
        for start in [
            ends.start(&other, "job", &"all", page(2)),
            ends.start(&one, "source", &"all", page(2)),
            ends.start(&one, "job", &"some", page(2)),
            ends.start(&one, "job", &"all", Page { number: 2, size: 3 }),
        ] {
            assert_eq!(start.behind(), None);
        }
    }
}
