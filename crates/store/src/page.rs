//! One page of a list, as the API numbers them.

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub number: u32,
    /// Rows in it at most.
    pub size: u32,
}

impl Page {
    pub(crate) fn limit(self) -> i64 {
        i64::from(self.size)
    }

    pub(crate) fn offset(self) -> i64 {
        i64::from(self.number.saturating_sub(1)) * i64::from(self.size)
    }
}

/// A page, and how many rows the whole list has.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The rows of the page, newest first.
    pub rows: Vec<T>,
    /// Rows on all pages.
    pub total: i64,
}
