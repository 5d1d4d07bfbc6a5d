//! A fingerprint that tells one content of a source from another.

use domain::parameters::FreeSpace;
use serde::{Deserialize, Serialize};

/// A value that a source has as long as nobody writes to it, and never has again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFingerprint(pub [u8; 32]);

impl ContentFingerprint {
    /// The same of a source whose free space is treated so: what is zeros in one copy may be data in the other.
    pub fn with(self, free_space: FreeSpace) -> Self {
        match free_space {
            FreeSpace::Skip => self,
            FreeSpace::Copy => Self(blake3::hash(&self.0).into()),
        }
    }
}
