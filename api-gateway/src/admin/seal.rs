//! Change of the seal key.

use proto::admin as wire;
use store::{Resealed, Store};
use tonic::Status;

use super::{Changed, failed};

pub(super) async fn rotate(store: &Store) -> Result<Changed<wire::RotateSealResponse>, Status> {
    let Resealed {
        anew,
        current,
        lost,
    } = store.reseal().await.map_err(failed)?;
    tracing::info!(anew, current, lost, "secrets were sealed anew");
    Ok(Changed::of_all(wire::RotateSealResponse {
        anew,
        current,
        lost,
    }))
}
