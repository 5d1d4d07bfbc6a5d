//! One file of an image, streamed from the image store.

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::Refusal;

/// Bytes that are read ahead of the connection.
const BUFFER_BYTES: usize = 256 * 1024;

/// A part of a file, or all of it.
#[derive(Debug)]
pub struct FileAnswer {
    file: File,
    first: u64,
    length: u64,
    total: u64,
}

/// Opens the file, at the part that the `Range` header asks for. `None` if there is no such file.
///
/// # Errors
/// The file can't be read, or has no such part.
pub async fn open(path: &Path, range: Option<&str>) -> Result<Option<FileAnswer>, OpenError> {
    let mut file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::Read(error)),
    };
    let metadata = file.metadata().await.map_err(OpenError::Read)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let total = metadata.len();
    let (first, length) = part(range, total)?;
    file.seek(io::SeekFrom::Start(first))
        .await
        .map_err(OpenError::Read)?;
    Ok(Some(FileAnswer {
        file,
        first,
        length,
        total,
    }))
}

/// An error of opening a file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system returned an error.
    #[error("a file of the image store can't be read")]
    Read(#[source] io::Error),
    /// The file ends before the range begins.
    #[error("the file has {total} bytes, which is before the range {range:?} begins")]
    Range {
        /// The range in the request.
        range: String,
        /// Size of the file in bytes.
        total: u64,
    },
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Read(_) => {
                tracing::error!(error = crate::refusal::causes(&error), "a download failed");
                Self::internal()
            }
            OpenError::Range { .. } => Self::range(format!("{error}.")),
        }
    }
}

/// Returns first byte and length of the part. One range is understood; a header of another form means the whole file
/// (RFC 9110, 14.2).
fn part(range: Option<&str>, total: u64) -> Result<(u64, u64), OpenError> {
    let whole = Ok((0, total));
    let Some((text, range)) =
        range.and_then(|range| Some((range, range.trim().strip_prefix("bytes=")?)))
    else {
        return whole;
    };
    let Some((first, last)) = range.split_once('-') else {
        return whole;
    };
    let (first, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(total)),
        (Ok(first), Err(_)) if last.is_empty() => (first, total),
        (Err(_), Ok(suffix)) if first.is_empty() && suffix > 0 => {
            (total.saturating_sub(suffix), total)
        }
        _ => return whole,
    };
    if first < end {
        Ok((first, end - first))
    } else {
        Err(OpenError::Range {
            range: text.to_owned(),
            total,
        })
    }
}

impl FileAnswer {
    /// Returns the response; the file is read as fast as the caller takes it.
    pub fn into_response(self) -> Response<Body> {
        let last = self.first + self.length.saturating_sub(1);
        let is_part = self.length < self.total;
        let stream = ReaderStream::with_capacity(self.file.take(self.length), BUFFER_BYTES);
        let mut response = Response::new(Body::from_stream(stream));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.length));
        if is_part {
            let range = format!("bytes {}-{last}/{}", self.first, self.total);
            if let Ok(range) = HeaderValue::from_str(&range) {
                headers.insert(header::CONTENT_RANGE, range);
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_understood_as_rfc_9110_says() {
        for (range, wanted) in [
            (None, (0, 100)),
            (Some("bytes=0-"), (0, 100)),
            (Some("bytes=10-19"), (10, 10)),
            (Some("bytes=90-500"), (90, 10)),
            (Some("bytes=-5"), (95, 5)),
            (Some("bytes=-500"), (0, 100)),
            (Some("bytes=5-1"), (0, 100)),
            (Some("bytes=0-1,5-6"), (0, 100)),
            (Some("lines=1-2"), (0, 100)),
        ] {
            assert_eq!(part(range, 100).unwrap(), wanted, "{range:?}");
        }
        assert!(part(Some("bytes=100-"), 100).is_err());
        assert!(part(Some("bytes=0-"), 0).is_err());
    }
}
