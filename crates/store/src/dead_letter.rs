//! Messages that nobody could read or do, kept for a person.
//!
//! A row is one message: the same one that dies again is counted there. An operator who has found the reason sends it on its way again: the
//! relay publishes it as it came, and removes the row.

use domain::Timestamp;
use domain::message::TraceHeaders;
use sqlx::types::Json;

use crate::{Store, StoreError, Transaction, outbox};

/// Rows of the outbox that can't be read lie under this subject, as JSON: they have none yet.
pub(crate) const OUTBOX: &str = "outbox";

/// A message that nobody could read or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// Where it came from.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its headers.
    pub headers: TraceHeaders,
    /// Why it died, the last time.
    pub reason: String,
    /// How often it died.
    pub times: i32,
    /// When, for the first time.
    pub first_at: Timestamp,
    /// When, for the last time.
    pub last_at: Timestamp,
}

/// A dead letter that is being sent again. It stays when this is dropped.
#[derive(Debug)]
pub struct Retried {
    transaction: Transaction<'static>,
    /// The message.
    pub letter: DeadLetter,
}

impl Store {
    /// Keeps a message with the reason why it could not be read or done.
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

    /// Up to `most` dead letters, those that died last first; with an id, that one only.
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

    /// Asks the relay to send a dead letter on its way again. `false` if there is none of this id.
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

    /// Forgets a dead letter. `false` if there is none of this id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        let deleted = sqlx::query!("delete from dead_letter where id = $1", id)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// A dead letter that is to be sent again and that no other relay has taken. Those of the outbox are back in it by themselves.
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
    /// It is on its way: the row goes.
    ///
    /// # Errors
    /// The database fails; it is sent once more then.
    pub async fn sent(mut self) -> Result<(), StoreError> {
        sqlx::query!("delete from dead_letter where id = $1", self.letter.id)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
