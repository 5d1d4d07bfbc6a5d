//! The parts of a call that a gateway reads before the caller is known, without sockets and database. No input of
//! strangers may cause a panic.

use axum::body::Bytes;
use axum::http::Request;
use futures::FutureExt as _;
use http_body_util::Full;

use crate::answer::Format;
use crate::arguments::Arguments;
use crate::authentication::Claim;
use crate::authorization;
use crate::error_codes;
use crate::gateway::Limits;
use crate::operation::Operation;
use crate::operations;
use crate::origin::Origin;
use crate::request::Incoming;

const LIMITS: Limits = Limits {
    body_bytes: 64 * 1024,
    parameters: 500,
    request_timeout: std::time::Duration::from_secs(1),
};

/// Reads a call: method and query in the first line, a header in each line up to an empty one, then the body.
///
/// # Panics
/// If the result depends on the order of parameters. If the call is refused with a code or text that the operation does
/// not have.
pub fn read(bytes: &[u8]) {
    let Some(request) = request(bytes) else {
        return;
    };
    let origin = Origin::peer(([127, 0, 0, 1], 1).into(), false).behind(
        &["127.0.0.0/8".parse().expect("a network")],
        request.headers(),
    );
    let mut format = Format::default();
    let incoming = Incoming::read(request, origin, LIMITS, &mut format)
        .now_or_never()
        .expect("a body that is all there is read without waiting");
    let Ok(incoming) = incoming else {
        return;
    };
    let claimed = Claim::read(&incoming).map(|claim| claim.action.to_owned());
    let operation = claimed
        .as_deref()
        .ok()
        .and_then(Operation::named)
        .unwrap_or(&operations::all()[bytes.len() % operations::all().len()]);
    authorization::every_touched_is_named(operation, &incoming.pairs);
    let reversed = incoming.pairs.iter().rev().cloned().collect();
    let reversed = Arguments::parse(&operation.parameters, &reversed);
    match Arguments::parse(&operation.parameters, &incoming.pairs) {
        Ok(arguments) => {
            let reversed = reversed.expect("the order of parameters does not matter");
            assert_eq!(arguments, reversed, "{}", operation.name);
        }
        Err(refusal) => {
            assert!(reversed.is_err(), "{}: {refusal}", operation.name);
            error_codes::check(operation, &refusal);
        }
    }
}

fn request(bytes: &[u8]) -> Option<Request<Full<Bytes>>> {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|&byte| byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|&byte| byte == b' ')?;
    let mut target = b"/?".to_vec();
    target.extend_from_slice(&first[space + 1..]);
    let mut request = Request::builder().method(&first[..space]).uri(target);
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let body = Bytes::copy_from_slice(body);
    request.body(Full::new(body)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_taken_apart() {
        let text = b"POST Action=StopReplicationJob\nhost: here\ncontent-type: application/x-www-form-urlencoded\n\nJobId=j-1";
        let request = request(text).expect("a request");
        assert_eq!(request.uri().query(), Some("Action=StopReplicationJob"));
        assert_eq!(request.headers()["host"], "here");
        read(text);
        read(b"");
        read(b"GET \xff");
    }
}
