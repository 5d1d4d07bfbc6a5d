//! Errors of a private server.

use std::io;
use std::path::PathBuf;

/// Reasons for which a private server does not run. The text names a remedy.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// This machine has no program of that server.
    #[error("no {server} found: run `make setup`, or set {variable}, or give {flag}")]
    Missing {
        /// The server.
        server: &'static str,
        /// The environment variable that names it.
        variable: &'static str,
        /// The flag that makes it unnecessary.
        flag: &'static str,
    },
    /// Another process holds the directory.
    #[error("{} is in use by another Wherry process: stop that one first, or choose another data directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The data was written by another major version.
    #[error(
        "{} was made by PostgreSQL {made_by}, but {} is version {found}: set WHERRY_PG_BIN to the programs of version {made_by}",
        dir.display(), program.display()
    )]
    OtherVersion {
        /// The directory.
        dir: PathBuf,
        /// The version that made it.
        made_by: String,
        /// The program that was found.
        program: PathBuf,
        /// The version of that program.
        found: String,
    },
    /// A file or folder of the server could not be prepared.
    #[error("cannot {action} {}", path.display())]
    Preparing {
        /// The action that failed.
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The program could not be run at all.
    #[error("cannot run {}", program.display())]
    Running {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The program ended before it was ready.
    #[error("{} did not start ({outcome}); the end of its log, {}:\n{tail}", program.display(), log.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// Its exit status or signal.
        outcome: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The program runs but did not become ready in time.
    #[error("{} was not ready after {secs} s; the end of its log, {}:\n{tail}", program.display(), log.display())]
    NotReady {
        /// The program.
        program: PathBuf,
        /// Time that we waited.
        secs: u64,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}
