//! Why a private server does not run.

use std::io;
use std::path::PathBuf;

/// Why a private server does not run. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No program of that server on this machine.
    #[error("no {server} found: run `make setup`, or set {variable}, or give {flag}")]
    Missing {
        /// The server.
        server: &'static str,
        /// The environment variable that names it.
        variable: &'static str,
        /// The flag that makes it unnecessary.
        flag: &'static str,
    },
    /// Another process has the directory.
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
        /// What was to be done.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be run at all.
    #[error("cannot run {}", program.display())]
    Running {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program ended before it was ready.
    #[error("{} did not start ({outcome}); the end of its log, {}:\n{tail}", program.display(), log.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
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
        /// How long we waited.
        secs: u64,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}
