//! Messages that could not be read or processed, kept for a person.
//!
//! A row is one message. Further failures of the same message are counted in its row. An operator who has found the
//! reason requests a retry. The relay then publishes the message unchanged and removes the row.

use domain::Timestamp;
use domain::message::TraceHeaders;
use sqlx::types::Json;

use crate::{Store, StoreError, Transaction, outbox};

/// Subject of outbox rows that can't be read. They are kept as JSON, because they have no subject yet.
pub(crate) const OUTBOX: &str = "outbox";

/// A message that could not be read or processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number of the dead letter.
    pub id: i64,
    /// Subject of the message.
    pub subject: String,
    /// Bytes of the message.
    pub payload: Vec<u8>,
    /// Headers of the message.
    pub headers: TraceHeaders,
    /// Reason for the last failure.
    pub reason: String,
    /// Number of failures.
    pub times: i32,
    /// Time of the first failure.
    pub first_at: Timestamp,
    /// Time of the last failure.
    pub last_at: Timestamp,
}

/// A dead letter that is being sent again. Dropping this value keeps the dead letter.
#[derive(Debug)]
pub struct Retried {
    transaction: Transaction<'static>,
    /// The message.
    pub letter: DeadLetter,
}

impl Store {
    /// Stores a message with the reason why it could not be read or processed.
    ///
    /// # Errors
    /// The database fails; the message must not be discarded then.
    pub async fn bury_message(
        &self,
        subject: &str,
        payload: &[u8],
        headers: &TraceHeaders,
        reason: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into dead_letter (subject, payload, headers, reason) values ($1, $2, $3, $4)
             on conflict (subject, sha256(payload)) do update set
                 times = dead_letter.times + 1, last_at = now(), retry = false,
                 headers = excluded.headers, reason = excluded.reason",
            subject,
            payload,
            Json(headers) as _,
            reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns up to `most` dead letters, latest failures first. With an id, only that dead letter.
    ///
    /// # Errors
    /// The database fails.
    pub async fn dead_letters(
        &self,
        id: Option<i64>,
        most: i64,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = sqlx::query!(
            r#"
            select id, subject, payload, headers as "headers: Json<TraceHeaders>", reason, times, created_at, last_at
            from dead_letter where $1::bigint is null or id = $1
            order by last_at desc, id desc limit $2
            "#,
            id,
            most,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| DeadLetter {
                id: row.id,
                subject: row.subject,
                payload: row.payload,
                headers: row.headers.0,
                reason: row.reason,
                times: row.times,
                first_at: row.created_at.into(),
                last_at: row.last_at.into(),
            })
            .collect())
    }

    /// Asks the relay to send a dead letter again. `false` if none has this id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn retry_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let asked = sqlx::query!("update dead_letter set retry = true where id = $1", id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("select pg_notify($1, '')", outbox::CHANNEL)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(asked.rows_affected() == 1)
    }

    /// Deletes a dead letter. `false` if none has this id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        let deleted = sqlx::query!("delete from dead_letter where id = $1", id)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Takes a dead letter that is to be sent again and that no other relay has taken. Dead letters of the outbox are
    /// moved back to the outbox.
    ///
    /// # Errors
    /// The database fails.
    pub async fn take_retried_letter(&self) -> Result<Option<Retried>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "with back as (delete from dead_letter where subject = $1 and retry returning payload, headers)
             insert into outbox (id, message, headers)
             select gen_random_uuid(), convert_from(payload, 'UTF8')::jsonb, headers from back",
            OUTBOX
        )
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query!(
            r#"
            select id, subject, payload, headers as "headers: Json<TraceHeaders>", reason, times, created_at, last_at
            from dead_letter where retry order by id limit 1 for update skip locked
            "#
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            transaction.commit().await?;
            return Ok(None);
        };
        let letter = DeadLetter {
            id: row.id,
            subject: row.subject,
            payload: row.payload,
            headers: row.headers.0,
            reason: row.reason,
            times: row.times,
            first_at: row.created_at.into(),
            last_at: row.last_at.into(),
        };
        Ok(Some(Retried {
            transaction,
            letter,
        }))
    }
}

impl Retried {
    /// Removes the row of a dead letter that was sent.
    ///
    /// # Errors
    /// The database fails; the dead letter is sent once more.
    pub async fn sent(mut self) -> Result<(), StoreError> {
        sqlx::query!("delete from dead_letter where id = $1", self.letter.id)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
