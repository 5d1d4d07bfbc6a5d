//! Exit codes of a process.

/// Exit codes of every `wherry` command; scripts and service managers may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Ended as asked; a completed drain counts.
    Ok = 0,
    /// Failed; standard error gives the reason. Trying again may help.
    Failed = 1,
    /// The command line or a setting is wrong. Trying again does not help.
    Usage = 2,
    /// An address to listen on is taken or not allowed.
    Bind = 3,
    /// A needed service (Postgres, NATS, the gateway) could not be reached.
    Unavailable = 4,
    /// Draining took longer than its deadline: work was cut off, and others take it over.
    DrainTimeout = 5,
    /// Ended by a second signal without draining.
    Interrupted = 130,
}

impl ExitCode {
    /// The number.
    pub const fn code(self) -> i32 {
        self as i32
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
