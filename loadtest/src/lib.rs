//! Load on a Wherry, and proof that its limits hold.
//!
//! [`jobs::run`] starts real jobs with small disks through the signed API, with one agent process for each source. Its
//! verdict does not rest on the API. It rests on the history of jobs in the database, which the pure function
//! [`history::check`] replays. It also rests on the delivered disks, which are compared byte for byte with their
//! sources.

//!
//! [`api::run`] calls the API at a set rate over a database that is as full as an old deployment's.

mod deployment;
mod process;

pub mod api;
pub mod figures;
pub mod history;
pub mod jobs;
