//! Background tasks, and the handling of a task that dies.
//!
//! Every task has a name and a policy. One place logs, counts and handles each failure, a panic included:
//! `Group::failed` below. A task that returns `Ok` is done, regardless of its policy.

mod group;
mod policy;

pub use group::{TaskFailure, TaskGroup};
pub use policy::{Backoff, OnCancel, OnError, Policy};
