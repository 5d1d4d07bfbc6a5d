//! A transfer that broke off, as whoever decides on the next attempt sees it.

use domain::Failure;
use transport::Kind;

use super::SendProgress;
use crate::TransferError;

/// An attempt that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The failure that the tenant reads if it was the last attempt.
    pub failure: Failure,
    /// True if another attempt may come to its end.
    pub is_retryable: bool,
    /// True if it got as far as sending. Then its failure is a new one, and pauses begin with short ones again.
    pub has_sent: bool,
    /// True if a disk was written meanwhile: the next attempt is the last one, and ends at the first write.
    pub was_written: bool,
    /// The transport that broke, if that is what happened: the next attempt prefers the other one.
    pub failed_transport: Option<Kind>,
}

impl FailedAttempt {
    /// An attempt that ended with this error at this progress.
    pub fn new(error: &TransferError, progress: &SendProgress) -> Self {
        Self {
            failure: error.failure(),
            is_retryable: error.is_retryable(),
            has_sent: progress.bytes_wire > 0,
            was_written: matches!(error, TransferError::Written { .. }),
            failed_transport: match error {
                TransferError::Connection { .. } => {
                    progress.transport.map(|choice| choice.transport)
                }
                _ => None,
            },
        }
    }

    /// One that ended before it had a connection.
    pub fn before_sending(failure: Failure) -> Self {
        Self {
            is_retryable: failure.code.is_retryable(),
            failure,
            has_sent: false,
            was_written: false,
            failed_transport: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::{Choice, Reason};

    #[test]
    fn only_a_connection_that_broke_speaks_against_its_transport() {
        let progress = SendProgress {
            transport: Some(Choice {
                transport: Kind::Quic,
                reason: Reason::Unmeasured,
            }),
            bytes_wire: 1,
            ..SendProgress::default()
        };
        let lost = TransferError::Connection {
            address: "there".to_owned(),
            message: "gone".to_owned(),
        };
        let failed = FailedAttempt::new(&lost, &progress);
        assert!(failed.is_retryable && failed.has_sent);
        assert_eq!(failed.failed_transport, Some(Kind::Quic));
        let replaced = FailedAttempt::new(&TransferError::Replaced, &SendProgress::default());
        assert!(replaced.is_retryable && !replaced.has_sent);
        assert_eq!(replaced.failed_transport, None);
    }
}
