//! Messages that must be sent if, and only if, their transaction commits.
//!
//! The relay publishes a row with its id as the message id and then deletes the row. If the relay dies between the two,
//! the message is published twice. The stream drops the second copy, or at the latest the reader of the row does.

use domain::message::{Message, TraceHeaders};
use serde::Deserialize as _;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{StoreError, Transaction, dead_letter};

/// Channel of notifications that messages were added.
pub const CHANNEL: &str = "wherry_outbox";

/// Adds a message to the transaction. Ids are version 7, so that their order is the order of their creation.
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

/// A message that waits to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Id of the message, which is also the message id on the stream.
    pub id: Uuid,
    /// The message to publish.
    pub message: Message,
    /// Trace context of the cause.
    pub headers: TraceHeaders,
}

/// Messages that one relay has taken. Other relays skip them until this value is dropped; only published messages are
/// removed.
#[derive(Debug)]
pub struct Batch {
    transaction: sqlx::Transaction<'static, sqlx::Postgres>,
    /// The messages, oldest first.
    pub messages: Vec<Waiting>,
    /// Rows that this version can't read. They become dead letters when the batch ends, so that they don't block later
    /// messages.
    pub unreadable: Vec<Unreadable>,
}

/// A row that does not hold a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Id of the row.
    pub id: Uuid,
    /// Reason why the row can't be read.
    pub reason: String,
}

impl crate::Store {
    /// Takes up to `most` messages, oldest first, that no other relay has taken.
    ///
    /// # Errors
    /// The database fails.
    pub async fn take_messages(&self, most: i64) -> Result<Batch, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"
            select id, message as "message: Json<Value>", headers as "headers: Json<TraceHeaders>" from outbox
            order by created_at, id limit $1 for update skip locked
            "#,
            most,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let (mut messages, mut unreadable) = (Vec::new(), Vec::new());
        for row in rows {
            match Message::deserialize(&row.message.0) {
                Ok(message) => messages.push(Waiting {
                    id: row.id,
                    message,
                    headers: row.headers.0,
                }),
                Err(error) => {
                    bury(&mut transaction, row.id, &error.to_string()).await?;
                    unreadable.push(Unreadable {
                        id: row.id,
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(Batch {
            transaction,
            messages,
            unreadable,
        })
    }
}

async fn bury(transaction: &mut Transaction<'_>, id: Uuid, reason: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "with unreadable as (delete from outbox where id = $1 returning message, headers)
         insert into dead_letter (subject, payload, headers, reason)
         select $3, convert_to(message::text, 'UTF8'), headers, $2 from unreadable
         on conflict (subject, sha256(payload)) do update set
             times = dead_letter.times + 1, last_at = now(), retry = false,
             headers = excluded.headers, reason = excluded.reason",
        id,
        reason,
        dead_letter::OUTBOX,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

impl Batch {
    /// Returns true if there was nothing to take.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.unreadable.is_empty()
    }

    /// Removes the messages that were published and leaves the others to the next relay.
    ///
    /// # Errors
    /// The database fails. The whole batch is published again, and the stream drops the messages that it has already.
    pub async fn published(mut self, ids: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!("delete from outbox where id = any($1)", ids)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
