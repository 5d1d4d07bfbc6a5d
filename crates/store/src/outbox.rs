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

/// A message that waits to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its id, which is the message id on the stream.
    pub id: Uuid,
    /// What to publish.
    pub message: Message,
    /// Trace context of what caused it.
    pub headers: TraceHeaders,
}

/// Messages that one relay has taken. Others leave them alone until this is dropped; only what is marked goes.
#[derive(Debug)]
pub struct Batch {
    transaction: sqlx::Transaction<'static, sqlx::Postgres>,
    /// The messages, oldest first.
    pub messages: Vec<Waiting>,
}

impl crate::Store {
    /// Takes up to `most` messages, oldest first, that no other relay has taken.
    ///
    /// # Errors
    /// The database fails, or a message can't be read.
    pub async fn take_messages(&self, most: i64) -> Result<Batch, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"
            select id, message as "message: Json<Message>", headers as "headers: Json<TraceHeaders>" from outbox
            order by created_at, id limit $1 for update skip locked
            "#,
            most,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let messages = rows
            .into_iter()
            .map(|row| Waiting {
                id: row.id,
                message: row.message.0,
                headers: row.headers.0,
            })
            .collect();
        Ok(Batch {
            transaction,
            messages,
        })
    }
}

impl Batch {
    /// Removes the messages that were published and leaves the others to the next relay.
    ///
    /// # Errors
    /// The database fails: everything of the batch is published again, and the stream drops what it knows.
    pub async fn published(mut self, ids: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!("delete from outbox where id = any($1)", ids)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
