//! Messages that nobody could read, kept for a person.

use domain::message::TraceHeaders;
use sqlx::types::Json;

use crate::{Store, StoreError};

impl Store {
    /// Keeps a message with the reason why it could not be read.
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
            "insert into dead_letter (subject, payload, headers, reason) values ($1, $2, $3, $4)",
            subject,
            payload,
            Json(headers) as _,
            reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
