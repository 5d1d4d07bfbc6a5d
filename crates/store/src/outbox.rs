//! Messages that must be sent if, and only if, their transaction commits.
//!
//! The relay publishes a row with its id as the message id and then deletes it. Killed between the two it publishes twice, and the
//! stream, or at the latest the reader of the row, drops the second.

use domain::message::{Message, TraceHeaders};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{StoreError, Transaction};

/// Notified when messages were added.
pub const CHANNEL: &str = "wherry_outbox";

/// Adds a message to the transaction. Ids are version 7, so that their order is the order of their making.
pub(crate) async fn append(
    transaction: &mut Transaction<'_>,
    message: &Message,
    headers: &TraceHeaders,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into outbox (id, message, headers) values ($1, $2, $3)",
        Uuid::now_v7(),
        Json(message) as _,
        Json(headers) as _,
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!("select pg_notify($1, '')", CHANNEL)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
