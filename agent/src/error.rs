//! Errors that end an agent.

use std::io;
use std::path::PathBuf;

/// Reasons for which the agent can't continue. Each text names a remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is not registered, and there is no code to register it with.
    #[error(
        "this server is not registered yet: give a file with an activation code with --activation-code-file (CreateAccessToken makes one)"
    )]
    NotRegistered,
    /// The file of the activation code can't be read.
    #[error(
        "can't read the activation code from {path}: give its file with --activation-code-file, or - for standard input"
    )]
    ReadingCode {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file of the activation code has other contents.
    #[error("{path} must hold an activation code")]
    InvalidCode {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: crate::InvalidActivationCode,
    },
    /// The gateway's certificate does not come from the authority that the activation code names.
    #[error(
        "{server} is not the deployment of this activation code: its certificate does not come from the authority with the code's fingerprint. \
         Nothing was sent. Check --server and the code, and who answers at that address"
    )]
    WrongDeployment {
        /// Address that was called.
        server: String,
    },
    /// The gateway refuses to register the server.
    #[error("{server} does not register this server: {reason}")]
    Refused {
        /// Address that was called.
        server: String,
        /// The gateway's sentence.
        reason: String,
    },
    /// Two of the named disks are the same disk.
    #[error("{message}")]
    DiskRepeated {
        /// The two paths and a remedy.
        message: String,
    },
    /// The state directory can't be used.
    #[error("can't {action} {}: check that the directory exists and belongs to the user that runs the agent (--state-dir)", path.display())]
    State {
        /// Such as "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// Another agent uses the state directory.
    #[error("another agent runs with the state directory {}: end it, or give this one another with --state-dir", path.display())]
    StateInUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the state directory has invalid contents.
    #[error("{} is damaged: remove the state directory and register this server anew", path.display())]
    StateDamaged {
        /// The file.
        path: PathBuf,
        /// The mistake in the file.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A key could not be made.
    #[error("no key could be made for this agent")]
    Key(#[source] pki::Error),
    /// Keys and certificates do not make a TLS configuration.
    #[error("TLS can't be set up for {server}")]
    Tls {
        /// Address to be called.
        server: String,
        /// The library's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address for metrics could not be bound.
    #[error(transparent)]
    Bind(#[from] service::BindError),
    /// A part of the agent failed for good, or draining took too long.
    #[error(transparent)]
    Task(#[from] service::TaskFailure),
}
