//! Client tokens: a call repeated with the same token has the first call's answer (SMC API §5.7). A token is unique in
//! its account: another operation can't use it again.
//!
//! The token is claimed in the transaction that performs the call, so a failed call does not bind it. A second call
//! with the same token waits in Postgres for the end of the first and then reads its answer.

use std::time::Duration;

use domain::TenantId;
use serde_json::Value;

use crate::{Store, StoreError, Transaction};

/// Time that an answer is kept for its token.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A call's token, and the data that identify a repetition of the call.
#[derive(Debug, Clone, Copy)]
pub struct ClientToken<'a> {
    /// The token.
    pub token: &'a str,
    /// The operation's name.
    pub operation: &'a str,
    /// SHA-256 of the call's business parameters.
    pub digest: &'a [u8],
}

/// Outcome of a claim to a token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Claim {
    /// The token is new, and bound to the answer if the transaction commits.
    New,
    /// The same call had this answer.
    Repeated(Value),
    /// Another call had the token.
    Mismatch,
}

/// Binds the token to `answer`, or returns its earlier binding.
pub(crate) async fn claim(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    token: ClientToken<'_>,
    answer: &Value,
) -> Result<Claim, StoreError> {
    let bound = sqlx::query!(
        "insert into client_token (tenant, token, operation, digest, answer) values ($1, $2, $3, $4, $5)
         on conflict (tenant, token) do update
         set operation = excluded.operation, digest = excluded.digest, answer = excluded.answer, created_at = now()
         where client_token.created_at < now() - make_interval(secs => $6)",
        tenant.as_str(),
        token.token,
        token.operation,
        token.digest,
        answer,
        KEPT_FOR.as_secs_f64(),
    )
    .execute(&mut **transaction)
    .await?;
    if bound.rows_affected() == 1 {
        return Ok(Claim::New);
    }
    let earlier = sqlx::query!(
        "select operation, digest, answer from client_token where tenant = $1 and token = $2",
        tenant.as_str(),
        token.token
    )
    .fetch_one(&mut **transaction)
    .await?;
    let is_the_same = earlier.operation == token.operation && earlier.digest == token.digest;
    Ok(if is_the_same {
        Claim::Repeated(earlier.answer)
    } else {
        Claim::Mismatch
    })
}

impl Store {
    /// Deletes at most 10,000 expired tokens, and returns their number.
    pub async fn forget_client_tokens(&self) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from client_token where (tenant, token) in (
                select tenant, token from client_token
                where created_at < now() - make_interval(secs => $1)
                limit 10000 for update skip locked)",
            KEPT_FOR.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
