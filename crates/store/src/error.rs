//! Errors between Wherry and Postgres.

/// The way a caller should treat an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The same call may succeed in a moment.
    Retry,
    /// The call collided with another and has no outcome for the collision.
    Conflict,
    /// A row holds a value that this version can't read.
    Corrupt,
    /// A defect, or a database that is not ours.
    Internal,
}

/// A statement, connection or row failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection to Postgres could be made.
    #[error(
        "can't connect to PostgreSQL at {address}: is it running, and is the database URL right?"
    )]
    Connect {
        /// Host, port and database, without credentials.
        address: String,
        /// Error of the driver.
        #[source]
        source: sqlx::Error,
    },
    /// The database URL can't be read.
    #[error("the database URL is not of the form postgres://user:password@host:port/database")]
    InvalidUrl(#[source] sqlx::Error),
    /// The schema could not be migrated to this version.
    #[error("can't migrate the database to this version's schema")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The schema is missing or belongs to an older version.
    #[error(
        "the database has no Wherry schema, or an older one: `wherry migrate` brings it to this version"
    )]
    SchemaMissing,
    /// A statement failed.
    #[error("a database statement failed")]
    Statement(#[from] sqlx::Error),
    /// A row holds a value that this version does not know.
    #[error("the database holds a value of {column} that this version can't read: {value:?}")]
    UnknownValue {
        /// Table and column.
        column: &'static str,
        /// Value of the column.
        value: String,
    },
    /// A sealed secret can't be opened with this key.
    #[error("a sealed secret can't be opened: the seal key is not the one it was sealed with")]
    Unseal,
}

impl StoreError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } => ErrorKind::Retry,
            Self::Statement(error) => statement_kind(error),
            Self::UnknownValue { .. } | Self::Unseal => ErrorKind::Corrupt,
            Self::InvalidUrl(_) | Self::Migrate(_) | Self::SchemaMissing => ErrorKind::Internal,
        }
    }

    /// Returns true if the statement broke the unique constraint or index of this name.
    pub(crate) fn violates(&self, constraint: &str) -> bool {
        match self {
            Self::Statement(sqlx::Error::Database(error)) => error.constraint() == Some(constraint),
            _ => false,
        }
    }
}

/// SQLSTATEs, or classes of them, of conditions that pass.
const PASSING: [&str; 8] = [
    "08",    // the connection
    "25006", // the server is a standby: a failover is under way
    "25P03", // a transaction that was idle for too long, as that of a paused process
    "40",    // a serialisation failure or deadlock
    "53",    // exhaustion
    "55P03", // lock_timeout: somebody holds the row for long
    "57014", // statement_timeout: the server is slow
    "57P",   // the server goes down or comes up
];

fn statement_kind(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some(code) if PASSING.iter().any(|class| code.starts_with(class)) => ErrorKind::Retry,
            Some(code) if code.starts_with("23") => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        },
        // A connection that breaks between two messages appears as a breach of the protocol.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed => ErrorKind::Retry,
        _ => ErrorKind::Internal,
    }
}
