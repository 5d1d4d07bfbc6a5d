//! An answer that is a stream of bytes.

use bytes::Bytes;
use url::Url;

use crate::CallError;

/// The bytes of one file, as they arrive.
#[derive(Debug)]
pub struct Download {
    pub(crate) endpoint: Url,
    pub(crate) response: reqwest::Response,
}

impl Download {
    /// Number of bytes that will come, if the gateway gave it.
    pub fn length_bytes(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// [`CallError::Interrupted`] or [`CallError::TimedOut`]; the download can be taken up again at the offset reached.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        self.response
            .chunk()
            .await
            .map_err(|source| CallError::from_http(&self.endpoint, source))
    }
}
