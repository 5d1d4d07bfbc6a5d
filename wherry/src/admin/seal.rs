//! `wherry admin seal`: the key of secrets at rest.

use clap::Subcommand;
use proto::admin as wire;
use serde_json::json;

use super::socket::{Client, said};
use super::{Answer, show};

#[derive(Debug, Subcommand)]
pub(super) enum SealCommand {
    /// Seals with the first key of WHERRY_SEAL_KEY what its older ones have sealed. Afterwards the older ones can go
    /// (docs/operators.md).
    Rotate,
}

impl SealCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        let Self::Rotate = self;
        let request = wire::RotateSealRequest {};
        let done = client
            .rotate_seal(request)
            .await
            .map_err(said)?
            .into_inner();
        let answer = json!({
            "SealedAnew": done.anew,
            "SealedBefore": done.current,
            "Lost": done.lost,
        });
        Ok((answer, show))
    }
}
