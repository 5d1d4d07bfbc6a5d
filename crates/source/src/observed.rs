//! The result of the question whether a source is being written.

use chunks::ContentFingerprint;
use domain::disk::Moment;

/// A source as it was found at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// Nothing was being written.
    Still(ContentFingerprint),
    /// Something was being written.
    BeingWritten,
    /// The kernel does not tell.
    Unknown,
}

impl Observed {
    /// The fingerprint, if there was one.
    pub fn fingerprint(self) -> Option<ContentFingerprint> {
        match self {
            Self::Still(fingerprint) => Some(fingerprint),
            Self::BeingWritten | Self::Unknown => None,
        }
    }

    /// The moment of what was read of the source from this observation until a later one.
    pub fn until(self, later: Self) -> Moment {
        match (self, later) {
            (Self::Still(first), Self::Still(last)) if first == last => Moment::One,
            (Self::Unknown, _) | (_, Self::Unknown) => Moment::Unknown,
            (Self::Still(_) | Self::BeingWritten, Self::Still(_) | Self::BeingWritten) => {
                Moment::Several
            }
        }
    }
}
