//! Background tasks, and what happens when one of them dies.
//!
//! Every task has a name and a policy. There is one place where a failure, a panic included, is logged, counted and acted upon:
//! `Group::failed` below. A task that returns `Ok` is done, whatever its policy.

mod group;
mod policy;

pub use group::{TaskFailure, TaskGroup};
pub use policy::{Backoff, OnCancel, OnError, Policy};
