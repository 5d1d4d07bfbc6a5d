//! Messages as bytes: protobuf bodies, the message id and the trace context as headers.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use domain::Run;
use domain::message::{Command, JobChanged, Message, TraceHeaders};
use prost::Message as _;
use proto::event;
use uuid::Uuid;

use crate::streams;

/// Reason why a message can't be read. Such a message becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it is no protobuf of ours: {0}")]
    Protobuf(String),
    #[error("it is of a kind that this version does not know")]
    UnknownKind,
    #[error("its {field} can't be read: {value:?}")]
    Field { field: &'static str, value: String },
}

/// Returns subject and body of a message.
pub(crate) fn encode(message: &Message) -> (String, Vec<u8>) {
    match message {
        Message::Command(command) => (streams::command_subject(command), encode_command(command)),
        Message::JobChanged(changed) => (
            streams::event_subject(&changed.tenant, &changed.job_id),
            encode_change(changed),
        ),
    }
}

fn encode_command(command: &Command) -> Vec<u8> {
    use event::command::Kind;

    let kind = match command {
        Command::StartRun { job_id, run } => Kind::StartRun(event::StartRun {
            job_id: job_id.to_string(),
            run: run.0,
        }),
        Command::StopRun { job_id } => Kind::StopRun(event::StopRun {
            job_id: job_id.to_string(),
        }),
        Command::RemoveJob { job_id } => Kind::RemoveJob(event::RemoveJob {
            job_id: job_id.to_string(),
        }),
        Command::RemoveImage { image_id } => Kind::RemoveImage(event::RemoveImage {
            image_id: image_id.to_string(),
        }),
    };
    event::Command { kind: Some(kind) }.encode_to_vec()
}

pub(crate) fn decode_command(payload: &[u8]) -> Result<Command, DecodeError> {
    use event::command::Kind;

    let decoded = event::Command::decode(payload)
        .map_err(|error| DecodeError::Protobuf(error.to_string()))?;
    Ok(match decoded.kind.ok_or(DecodeError::UnknownKind)? {
        Kind::StartRun(start) => Command::StartRun {
            job_id: field("job_id", &start.job_id)?,
            run: Run(start.run),
        },
        Kind::StopRun(stop) => Command::StopRun {
            job_id: field("job_id", &stop.job_id)?,
        },
        Kind::RemoveJob(remove) => Command::RemoveJob {
            job_id: field("job_id", &remove.job_id)?,
        },
        Kind::RemoveImage(remove) => Command::RemoveImage {
            image_id: field("image_id", &remove.image_id)?,
        },
    })
}

fn encode_change(changed: &JobChanged) -> Vec<u8> {
    event::JobChanged {
        tenant: changed.tenant.to_string(),
        job_id: changed.job_id.to_string(),
        event: changed.event.to_string(),
        from_state: changed.from.to_string(),
        to_state: changed.to.to_string(),
        run: changed.run.0,
        epoch: changed.epoch.0,
    }
    .encode_to_vec()
}

fn field<T: std::str::FromStr>(field: &'static str, value: &str) -> Result<T, DecodeError> {
    value.parse().map_err(|_| DecodeError::Field {
        field,
        value: value.to_owned(),
    })
}

/// Returns the headers of a message.
pub(crate) fn headers(id: Uuid, trace: &TraceHeaders) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id.to_string());
    for (name, value) in trace {
        headers.insert(name.as_str(), value.as_str());
    }
    headers
}

/// Returns the trace context in a message's headers.
pub(crate) fn trace(headers: Option<&HeaderMap>) -> TraceHeaders {
    let trace = |name: &str| Some((name.to_owned(), headers?.get(name)?.to_string()));
    ["traceparent", "tracestate"]
        .into_iter()
        .filter_map(trace)
        .collect()
}

/// Returns all headers of a message, the first value of each.
pub(crate) fn all_headers(headers: Option<&HeaderMap>) -> TraceHeaders {
    headers
        .into_iter()
        .flat_map(HeaderMap::iter)
        .filter_map(|(name, values)| Some((name.to_string(), values.first()?.to_string())))
        .collect()
}

/// Returns the headers of a message that is sent on unchanged. Its id is left out, because the stream would drop the
/// message as a duplicate.
pub(crate) fn sent_on(headers: &TraceHeaders) -> HeaderMap {
    let mut sent_on = HeaderMap::new();
    for (name, value) in headers {
        if !name.eq_ignore_ascii_case(NATS_MESSAGE_ID.as_ref()) {
            sent_on.insert(name.as_str(), value.as_str());
        }
    }
    sent_on
}

#[cfg(test)]
mod tests {
    use domain::job::{Event, State};
    use domain::{Epoch, ImageId, JobId, TenantId};

    use super::*;

    fn decode_change(payload: &[u8]) -> Result<JobChanged, DecodeError> {
        let decoded = event::JobChanged::decode(payload)
            .map_err(|error| DecodeError::Protobuf(error.to_string()))?;
        Ok(JobChanged {
            tenant: field("tenant", &decoded.tenant)?,
            job_id: field("job_id", &decoded.job_id)?,
            event: field("event", &decoded.event)?,
            from: field("from_state", &decoded.from_state)?,
            to: field("to_state", &decoded.to_state)?,
            run: Run(decoded.run),
            epoch: Epoch(decoded.epoch),
        })
    }

    #[test]
    fn every_message_reads_back() {
        let job_id = JobId::generate();
        for command in [
            Command::StartRun {
                job_id: job_id.clone(),
                run: Run(3),
            },
            Command::StopRun {
                job_id: job_id.clone(),
            },
            Command::RemoveJob {
                job_id: job_id.clone(),
            },
            Command::RemoveImage {
                image_id: ImageId::generate(),
            },
        ] {
            let (_, body) = encode(&Message::Command(command.clone()));
            assert_eq!(decode_command(&body), Ok(command));
        }
        let changed = JobChanged {
            tenant: TenantId::generate(),
            job_id,
            event: Event::Synced,
            from: State::Syncing,
            to: State::Processing,
            run: Run(1),
            epoch: Epoch(7),
        };
        let (subject, body) = encode(&Message::JobChanged(changed.clone()));
        assert!(subject.starts_with("wherry.evt."), "{subject}");
        assert_eq!(decode_change(&body), Ok(changed));
    }

    /// Checks bytes that version 1 wrote. They must be readable for as long as a stream may hold them.
    #[test]
    fn messages_of_version_1_are_still_read() {
        let start_run = b"\x0a\x0a\x0a\x06j-abc1\x10\x02";
        assert_eq!(
            decode_command(start_run),
            Ok(Command::StartRun {
                job_id: "j-abc1".parse().unwrap(),
                run: Run(2)
            })
        );
        assert_eq!(
            decode_command(b"\x7a\x00"),
            Err(DecodeError::UnknownKind),
            "a kind of a later version"
        );
        assert!(decode_command(b"nonsense").is_err());
        assert!(
            decode_command(b"\x0a\x04\x0a\x02..").is_err(),
            "a job id that is none"
        );
    }
}
