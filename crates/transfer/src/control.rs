//! Control messages on a stream: a header, then the message.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::{RecvStream, SendStream};

use crate::TransferError;
use crate::protocol::{
    CONTROL_HEADER_BYTES, DecodeError, control_header, decode_control, decode_control_header,
    encode_control,
};

/// A control message could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Connection(String),
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl ReadError {
    /// As an error of the transfer with the peer at `address`.
    pub(crate) fn at(self, address: &str) -> TransferError {
        match self {
            Self::Connection(message) => TransferError::Connection {
                address: address.to_owned(),
                message,
            },
            // As good as cut off: what was sent may come through the next time.
            Self::Malformed(error @ DecodeError::Changed) => TransferError::Connection {
                address: address.to_owned(),
                message: error.to_string(),
            },
            Self::Malformed(error) => TransferError::Protocol(error.to_string()),
        }
    }
}

pub(crate) async fn write(
    stream: &mut impl SendStream,
    message: &impl Serialize,
) -> io::Result<()> {
    let body = encode_control(message);
    let message = [control_header(&body).as_slice(), &body].concat();
    stream.write_all(&message).await
}

/// Reads the next message. Not to be dropped in the middle and called again: the stream would be out of step.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut impl RecvStream,
) -> Result<T, ReadError> {
    Ok(decode_control(&read_body(stream).await?)?)
}

/// The same without looking into it.
pub(crate) async fn read_body(stream: &mut impl RecvStream) -> Result<Vec<u8>, ReadError> {
    let broken = |error: io::Error| ReadError::Connection(error.to_string());
    let mut header = [0; CONTROL_HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(broken)?;
    let (length, crc) = decode_control_header(&header)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(broken)?;
    if crc32fast::hash(&body) != crc {
        return Err(DecodeError::Changed.into());
    }
    Ok(body)
}
