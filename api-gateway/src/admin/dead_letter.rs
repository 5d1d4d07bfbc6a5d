//! Messages that no process could read or carry out.

use proto::admin as wire;
use store::Store;
use store::dead_letter::DeadLetter;
use tonic::Status;

use super::{Changed, failed};

/// Most dead letters in one answer.
const MOST: i64 = 1000;

pub(super) async fn list(
    store: &Store,
    request: wire::ListDeadLettersRequest,
) -> Result<wire::ListDeadLettersResponse, Status> {
    let id = match request.id.as_str() {
        "" => None,
        text => Some(number(text)?),
    };
    let letters = store.dead_letters(id, MOST).await.map_err(failed)?;
    if let (Some(id), true) = (id, letters.is_empty()) {
        return Err(unknown(id));
    }
    Ok(wire::ListDeadLettersResponse {
        letters: letters.into_iter().map(described).collect(),
    })
}

pub(super) async fn retry(
    store: &Store,
    request: wire::RetryDeadLetterRequest,
) -> Result<Changed<wire::RetryDeadLetterResponse>, Status> {
    let id = number(&request.id)?;
    if !store.retry_dead_letter(id).await.map_err(failed)? {
        return Err(unknown(id));
    }
    Ok(Changed::of_all(wire::RetryDeadLetterResponse {}))
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeleteDeadLetterRequest,
) -> Result<Changed<wire::DeleteDeadLetterResponse>, Status> {
    let id = number(&request.id)?;
    if !store.delete_dead_letter(id).await.map_err(failed)? {
        return Err(unknown(id));
    }
    Ok(Changed::of_all(wire::DeleteDeadLetterResponse {}))
}

fn number(text: &str) -> Result<i64, Status> {
    text.parse().map_err(|_| {
        Status::invalid_argument(format!(
            "{text} is no number of a dead letter: `wherry admin dead-letter list` shows all"
        ))
    })
}

fn unknown(id: i64) -> Status {
    Status::not_found(format!(
        "there is no dead letter {id}: `wherry admin dead-letter list` shows all"
    ))
}

fn described(letter: DeadLetter) -> wire::DeadLetter {
    wire::DeadLetter {
        id: letter.id.to_string(),
        subject: letter.subject,
        payload: letter.payload,
        headers: letter.headers,
        reason: letter.reason,
        times: letter.times,
        first_time: letter.first_at.as_datetime().to_rfc3339(),
        last_time: letter.last_at.as_datetime().to_rfc3339(),
    }
}
