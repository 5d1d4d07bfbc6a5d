//! Control messages on a stream: a length, then the message.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TransferError;
use crate::carrier::{RecvStream, SendStream};
use crate::protocol::{DecodeError, MAX_CONTROL_BYTES, decode_control, encode_control};

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
            Self::Malformed(error) => TransferError::Protocol(error.to_string()),
        }
    }
}

pub(crate) async fn write(stream: &mut SendStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode_control(message)).await
}

/// Reads the next message. Not to be dropped in the middle and called again: the stream would be out of step.
pub(crate) async fn read<T: DeserializeOwned>(stream: &mut RecvStream) -> Result<T, ReadError> {
    Ok(decode_control(&read_body(stream).await?)?)
}

/// The same without looking into it.
pub(crate) async fn read_body(stream: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let broken = |error: io::Error| ReadError::Connection(error.to_string());
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(broken)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_CONTROL_BYTES {
        return Err(DecodeError::TooLong(length).into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(broken)?;
    Ok(body)
}
