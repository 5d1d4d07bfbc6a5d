//! Load on a Wherry, and proof that its limits hold.
//!
//! [`jobs::run`] starts real jobs with small disks through the signed API, with one agent process for each source. What it believes afterwards
//! it does not take from the API but from the history of jobs in the database, which [`history::check`], a pure function, replays; and from
//! the delivered disks, which are compared byte for byte with their sources.

pub mod history;
pub mod jobs;
