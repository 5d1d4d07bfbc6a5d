//! The gateway's socket for operators, and calls over it.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use proto::admin::admin_service_client::AdminServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::failure::{OperatorError, UsageError};

/// Name of the socket in the data directory of a `wherry up`.
pub(crate) const IN_DATA_DIR: &str = "admin.sock";

pub(super) type Client = AdminServiceClient<Channel>;

/// Bytes of one answer at most: ten thousand rows of the history or the audit fit.
const MAX_ANSWER_BYTES: usize = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct At {
    /// The gateway's socket for operators, its --admin. Only the account that the gateway runs as, and root, may open
    /// it.
    #[arg(
        long,
        env = "WHERRY_ADMIN_SOCKET",
        value_name = "PATH",
        global = true,
        help_heading = "Gateway"
    )]
    socket: Option<PathBuf>,
    /// Data directory of a `wherry up`, whose socket is in it.
    #[arg(
        long,
        env = "WHERRY_DATA_DIR",
        value_name = "DIR",
        global = true,
        help_heading = "Gateway"
    )]
    data_dir: Option<PathBuf>,
}

impl At {
    pub(super) async fn open(&self) -> anyhow::Result<Client> {
        let path = match (&self.socket, &self.data_dir) {
            (Some(socket), _) => socket.clone(),
            (None, Some(directory)) => directory.join(IN_DATA_DIR),
            (None, None) => {
                let missing = "give --socket, the path of the gateway's --admin, or --data-dir, the directory of a `wherry up`; or WHERRY_ADMIN_SOCKET";
                return Err(UsageError(missing.to_owned()).into());
            }
        };
        let shown = path.display().to_string();
        // Tried by itself first: what goes wrong at a socket has a plain cause, and a sentence of its own.
        if let Err(error) = std::os::unix::net::UnixStream::connect(&path) {
            return Err(OperatorError::unreachable(&shown, &error).into());
        }
        let path = std::path::absolute(&path)?;
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display()))
            .with_context(|| format!("{shown} is no path of a socket"))?;
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("can't talk to the gateway at {shown}"))?;
        Ok(AdminServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }
}

/// Turns the gateway's status into an error of this command.
pub(super) fn said(status: Status) -> anyhow::Error {
    let is_away = status.code() == Code::Unavailable;
    OperatorError::said(status.message(), is_away).into()
}
