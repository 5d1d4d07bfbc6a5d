//! Failures that a tenant reads: a stable code in `ErrorCode`, and a sentence in `StatusInfo` about what happened and
//! what to do. The cause is for the operator, and `wherry admin history` shows it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::printable;

/// A failure of a job or a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// Sentences about what happened and what to do, with the disk, offset or address concerned.
    pub message: String,
    /// Cause for the operator, with paths of the host, lines of logs and output of programs. Empty if the message has
    /// it all. Tenants never see it: neither JSON nor [`fmt::Display`] contain it.
    #[serde(skip)]
    pub cause: String,
}

impl Failure {
    /// Returns a failure with its sentence, escaped so that people see every character (`domain::printable`).
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: printable(&message.into()).into_owned(),
            cause: String::new(),
        }
    }

    /// Returns the failure with a cause for the operator. Characters that can't be seen become escapes.
    #[must_use]
    pub fn with_cause(self, cause: impl Into<String>) -> Self {
        let cause = printable(&cause.into()).into_owned();
        Self { cause, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

macro_rules! failure_codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $retry:literal;)+) => {
        /// The stable codes of `ErrorCode`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FailureCode {
            $(#[doc = $doc] #[serde(rename = $text)] $name,)+
        }

        impl FailureCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the code on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Returns a sentence that says when the code is given.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)+ }
            }

            /// Returns true if the same run may succeed when it continues. A lost connection can recover; a full disk
            /// can't.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retry,)+ }
            }
        }
    };
}

failure_codes! {
    /// The agent is silent.
    SourceOffline = "SourceServer.Offline", true;
    /// A disk of the source can't be opened or read.
    SourceDiskUnreadable = "SourceServer.DiskUnreadable", false;
    /// Two names of a source's disks refer to one disk.
    SourceDiskRepeated = "SourceServer.DiskRepeated", false;
    /// A disk of the source is gone, was replaced or resized, or was written during its copy.
    SourceDiskChanged = "SourceServer.DiskChanged", false;
    /// The agent can't reach the receiver.
    ReceiverUnreachable = "ReplicationJob.ReceiverUnreachable", true;
    /// The agent sends so slowly that a run misses its minimum progress within an hour.
    TooSlow = "ReplicationJob.TooSlow", false;
    /// The receiver is gone, or does not answer.
    ReceiverLost = "ReplicationJob.ReceiverLost", true;
    /// The disks or the image do not fit on the target.
    TargetFull = "ReplicationJob.TargetFull", false;
    /// The tenant's copies and images take more than they may.
    QuotaExceeded = "QuotaExceeded.Bytes", false;
    /// A target disk or the image store refuses a write.
    TargetUnwritable = "ReplicationJob.TargetUnwritable", false;
    /// The written data differs from the data that was sent.
    Corrupt = "ReplicationJob.DataCorrupt", false;
    /// The instance can't be created.
    InstanceFailed = "ReplicationJob.InstanceFailed", false;
    /// The image can't be created.
    ImageFailed = "ReplicationJob.ImageFailed", false;
    /// The run lost its worker repeatedly without progress.
    WorkerLost = "ReplicationJob.WorkerLost", false;
    /// Agent, receiver and worker use different versions of the protocol.
    VersionMismatch = "ReplicationJob.VersionMismatch", false;
    /// Anything else; the operator finds the cause in the history.
    Internal = "InternalError", false;
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no code that this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an error code of this version")]
pub struct UnknownFailureCode(String);

impl FromStr for FailureCode {
    type Err = UnknownFailureCode;

    fn from_str(text: &str) -> Result<Self, UnknownFailureCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownFailureCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_in_nothing_that_a_tenant_is_shown() {
        let failure = Failure::new(FailureCode::ImageFailed, "It can't be made.");
        let failure = failure.with_cause("can't write /srv/images\u{1b}");
        assert_eq!(failure.cause, "can't write /srv/images\\u{1b}");
        for shown in [
            failure.to_string(),
            serde_json::to_string(&failure).unwrap(),
        ] {
            assert!(!shown.contains("/srv"), "{shown}");
        }
    }

    #[test]
    fn codes_are_distinct_and_read_back() {
        for code in FailureCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
    }
}
